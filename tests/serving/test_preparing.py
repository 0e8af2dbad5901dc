"""Inputs are prepared in threads of their own."""

import asyncio
import threading
from contextlib import suppress

from serving.preparing import in_preparing_thread


def test_what_is_prepared_leaves_the_threads_of_everything_else_free() -> None:
    async def scenario() -> None:
        release = threading.Event()
        started = threading.Semaphore(0)
        ran: list[int] = []

        def hang(number: int) -> int:
            started.release()
            release.wait()
            ran.append(number)
            return number

        calls = [
            asyncio.create_task(in_preparing_thread(lambda number=number: hang(number)))
            for number in range(40)
        ]
        try:
            # More of them than the loop has threads, and the loop's threads answer.
            async with asyncio.timeout(20):
                for _ in range(2):
                    await asyncio.to_thread(started.acquire)
            assert not started.acquire(blocking=False)
            for call in calls[3:]:
                call.cancel()
            await asyncio.sleep(0)
        finally:
            release.set()
        assert [await call for call in calls[:3]] == [0, 1, 2]
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*calls[3:])
        # Whose caller has left is not prepared any more.
        assert sorted(ran) == [0, 1, 2]

    asyncio.run(scenario())
