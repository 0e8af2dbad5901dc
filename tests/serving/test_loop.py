"""Closing a loop that runs in a thread of its own, from wherever that happens."""

import asyncio
import threading

import pytest

from serving.loop import LoopClosedError, LoopThread


async def _nothing() -> None:
    pass


def test_closing_runs_the_last_call_and_ends_the_thread() -> None:
    loop = LoopThread("a-loop")
    ended: list[str] = []

    async def last() -> None:
        ended.append(threading.current_thread().name)

    loop.close(last())
    loop.close(_nothing())
    assert ended == ["a-loop"]
    assert "a-loop" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(LoopClosedError):
        loop.run(_nothing())


def test_closing_from_its_own_thread_does_not_wait_for_itself() -> None:
    # As when the last reference to what owns the loop goes there.
    loop = LoopThread("b-loop")
    ended = threading.Event()

    async def last() -> None:
        ended.set()

    async def close() -> None:
        loop.close(last())
        await asyncio.sleep(0)

    loop.submit(close())
    assert ended.wait(10)
    for thread in threading.enumerate():
        if thread.name.startswith("b-loop"):
            thread.join(10)
            assert not thread.is_alive()
