"""An event loop in a thread of its own, so that plain functions can call coroutines.

Knows asyncio and nothing of polyvec.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopClosedError(RuntimeError):
    """The loop is closed, or was closed before the call had finished."""


class LoopThread:
    """Runs coroutines in the background; works from any thread and from inside another loop."""

    def __init__(self, name: str) -> None:
        self._lock = threading.Lock()
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether calls are still taken."""
        return not self._closing

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start `coroutine`; cancelling the future cancels it.

        Raises:
            LoopClosedError: the loop takes no more calls.
        """
        with self._lock:
            if not self._closing:
                return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        coroutine.close()
        raise LoopClosedError("The loop is closed.")

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for `coroutine`; an interrupt cancels it.

        Raises:
            LoopClosedError: the loop is closed, or was closed meanwhile.
        """
        future = self.submit(coroutine)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise LoopClosedError("The loop was closed during the call.") from None
        except KeyboardInterrupt:
            future.cancel()
            raise

    async def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for `coroutine` from another loop; cancelling the caller cancels it.

        Raises:
            LoopClosedError: the loop is closed, or was closed meanwhile.
        """
        future = self.submit(coroutine)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise LoopClosedError("The loop was closed during the call.") from None

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Cancel what runs, run `last`, stop the loop and join its thread; a second call does nothing.

        From the loop's own thread, as where something is collected there, it only begins to.
        """
        with self._lock:
            if self._closing:
                last.close()
                return
            self._closing = True
        if threading.current_thread() is self._thread:
            threading.Thread(
                target=self._end, args=(last,), name=f"{self._thread.name}-end"
            ).start()
        else:
            self._end(last)

    def _end(self, last: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(self._finish(last), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _finish(self, last: Coroutine[Any, Any, None]) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await last
        if threading.main_thread().is_alive():
            # It starts a thread, which an exiting interpreter refuses.
            await self._loop.shutdown_default_executor()
