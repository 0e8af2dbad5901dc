"""An engine that answers when a test says so, and what a test needs to see a server from outside."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serving import ServerSettings
from serving.engine.fake import FakeEngine
from serving.engine.protocol import Outcome, Prompt, Want
from serving.manifest import find_tasks
from tests.http.live import Live, live_server
from tests.http.raw import TIMEOUT_S

TASK = "text-matching"
_POLL_S = 0.005


class HeldEngine(FakeEngine):
    """Holds every call until `go` is set; each piece it is given is in `pieces`, by its prompts."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.go = threading.Event()
        self.pieces: list[int] = []
        self.num_waiting = 0
        self.num_cancelled = 0

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        """As the fake engine, once it may; what is the same is computed once."""
        self.pieces.append(len(prompts))
        self.num_waiting += 1
        try:
            while not self.go.is_set():
                await asyncio.sleep(_POLL_S)
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.num_waiting -= 1
        distinct = list(dict.fromkeys(prompts))
        found = dict(zip(distinct, await super().embed(distinct, want), strict=True))
        return [found[prompt] for prompt in prompts]


@contextmanager
def held_server(models: Path, settings: ServerSettings) -> Iterator[tuple[Live, HeldEngine]]:
    """A server of one task, whose engine holds what it is given."""
    (directory,) = find_tasks(models, [TASK]).values()
    engine = HeldEngine(directory)
    with live_server(models, settings, {TASK: engine}) as live:
        try:
            yield live, engine
        finally:
            engine.go.set()


def port_of(live: Live) -> int:
    port = live.client.base_url.port
    assert port is not None
    return port


def gauge(live: Live, name: str) -> float:
    """A figure of /metrics without labels."""
    found = re.search(rf"^{name} (\S+)$", live.client.get("/metrics").text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what happens on the server's own thread."""
    give_up = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < give_up, f"not within {TIMEOUT_S} s: {what}"
        time.sleep(_POLL_S)
