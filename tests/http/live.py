"""A real server on loopback: uvicorn in a thread, over engines that a test chooses."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvloop

from serving import ServerSettings
from serving.engine.fake import FakeEngine
from serving.engine.protocol import Engine
from serving.http.app import application
from serving.http.edge import Draining
from serving.http.server import Bound, bind, quiet_server, uvicorn_config
from serving.manifest import find_tasks
from serving.service import Service

MODEL = "jina-embeddings-v4"

Embed = Callable[..., Any]
"""Takes the fields of a body beside the model, gives the answer's JSON."""


@dataclass(frozen=True, slots=True)
class Live:
    """A running server.

    Attributes:
        url: without a path.
        service: what it serves.
        draining: switch it on to see a server on its way out.
        client: of that url.
    """

    url: str
    service: Service
    draining: Draining
    client: httpx.Client


@contextmanager
def live_server(
    models: Path,
    settings: ServerSettings | None = None,
    engines: Mapping[str, Engine] | None = None,
) -> Iterator[Live]:
    """Serve every task of `models`, with fake engines unless others are given."""
    settings = ServerSettings(port=0) if settings is None else settings
    directories = find_tasks(models, None if engines is None else list(engines))
    engines = engines or {task: FakeEngine(path) for task, path in directories.items()}
    service = Service.of_engines(directories, engines, settings)
    draining = Draining()
    listener = bind(settings)
    started, failures = threading.Event(), list[BaseException]()
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        ending = asyncio.Event()
        stop.append((asyncio.get_running_loop(), ending))
        async with application(service, settings, draining=draining) as app:
            server = quiet_server(uvicorn_config(app, settings))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            started.set()
            await ending.wait()
            server.should_exit = True
            await serving

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main())
        except BaseException as error:  # noqa: BLE001 - raised again in the test
            failures.append(error)
            started.set()

    url = Bound(settings.host, listener.getsockname()[1]).url
    thread = threading.Thread(target=run, name="server")
    thread.start()
    started.wait()
    try:
        if not failures:
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
                yield Live(url, service, draining, client)
    finally:
        if stop and not failures:
            loop, ending = stop[0]
            loop.call_soon_threadsafe(ending.set)
        thread.join()
        listener.close()
    if failures:
        raise failures[0]
