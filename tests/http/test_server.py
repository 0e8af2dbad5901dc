"""How a server's engines start, and what it takes from the system."""

import asyncio
import logging
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.engine.protocol import Engine
from serving.engine.thread import calls_go_on, in_own_thread
from serving.errors import EngineStartError
from serving.http.open_files import OTHER_FILES, raise_open_files
from serving.http.server import Bound
from serving.starts import Starts


class Begun:
    """A start function that counts, and ends when it is let."""

    def __init__(self) -> None:
        self.directories: list[Path] = []
        self.may_end = asyncio.Event()

    async def start(self, directory: Path) -> Engine:
        self.directories.append(directory)
        await self.may_end.wait()
        raise EngineStartError("That was all.")


@pytest.mark.parametrize(("may_overlap", "num_begun"), [(True, 2), (False, 1)])
def test_engines_start_when_they_are_allowed_and_at_once_only_where_they_may(
    may_overlap: bool, num_begun: int
) -> None:
    async def scenario() -> None:
        begun, asked = Begun(), list[threading.Thread]()

        def ask() -> bool:
            asked.append(threading.current_thread())
            return may_overlap

        starts = Starts(begun.start, may_overlap=ask, timeout_s=60)
        tasks = [asyncio.create_task(starts.start(Path(name))) for name in ("a", "b")]
        await asyncio.sleep(0.05)
        assert asked == []
        starts.allow()
        while len(begun.directories) < num_begun:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert len(begun.directories) == num_begun
        begun.may_end.set()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, EngineStartError)
        assert begun.directories == [Path("a"), Path("b")]
        assert len(asked) == 1
        assert asked[0] is not threading.main_thread()

    asyncio.run(scenario())


def test_a_start_that_takes_too_long_is_cancelled_and_lets_the_next_one_begin() -> None:
    async def scenario() -> None:
        begun = Begun()
        starts = Starts(begun.start, may_overlap=lambda: False, timeout_s=0.1)
        starts.allow()
        tasks = [asyncio.create_task(starts.start(Path(name))) for name in ("a", "b")]
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, EngineStartError)
            assert "engine_start_timeout_s" in str(outcome)
        assert begun.directories == [Path("a"), Path("b")]

    asyncio.run(scenario())


@pytest.mark.parametrize("again", [False, True])
def test_a_call_that_hangs_is_left_to_itself_when_it_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    monkeypatch.setattr("serving.engine.thread._CANCEL_TIMEOUT_S", 3600 if again else 0.05)
    go_on = threading.Event()

    async def scenario() -> None:
        waiting = asyncio.create_task(in_own_thread(go_on.wait))
        await asyncio.sleep(0.05)
        waiting.cancel()
        if again:
            await asyncio.sleep(0.05)
            assert not waiting.done()
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert calls_go_on()

    asyncio.run(scenario())
    go_on.set()
    while calls_go_on():
        threading.Event().wait(0.005)


def test_what_a_call_raises_is_raised() -> None:
    def call() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(in_own_thread(call))
    assert not calls_go_on()


@pytest.fixture
def soft_limit() -> Iterator[int]:
    """The soft limit of open files, lowered below the hard one for the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowered = 1024
    assert hard > lowered
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowered, hard))
    yield lowered
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_server_may_open_as_many_files_as_the_system_lets_it(
    soft_limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with caplog.at_level(logging.WARNING, "serving.http.open_files"):
        raise_open_files(soft_limit)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert caplog.records == []
        raise_open_files(hard - OTHER_FILES)
        assert caplog.records == []
        raise_open_files(hard - OTHER_FILES + 1)
    (record,) = caplog.records
    assert f"lower max_connections to {hard - OTHER_FILES}" in record.getMessage()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
        ("[::1]", "http://[::1]:8000"),
        ("localhost", "http://localhost:8000"),
    ],
)
def test_the_url_that_is_printed_can_be_opened(host: str, url: str) -> None:
    assert Bound(host, 8000).url == url
