"""A thread for one call that takes long and returns something that must be let go of.

`asyncio.to_thread` keeps its result in a chain of futures; vLLM freezes the garbage collector's heap
while it starts, so that such a chain is never collected. And an executor waits for its threads whatever
they do, where one that hangs in an import must not keep a process from ending. Knows nothing of what is
called.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.02
# An import cannot be interrupted; an engine whose processes were killed gives up at once.
_CANCEL_TIMEOUT_S = 20.0


async def in_own_thread(
    call: Callable[[], T],
    *,
    interrupt: Callable[[], None] | None = None,
    discard: Callable[[T], None] | None = None,
) -> T:
    """Run `call` and return its result, leaving no reference to it.

    Cancelling waits for the call, but for no longer than `_CANCEL_TIMEOUT_S`, nor after a second
    cancelling: the thread then goes on by itself, and `calls_go_on` says so.

    Args:
        call: what to run.
        interrupt: called when this is cancelled; makes `call` end soon.
        discard: given the result that `call` returned after this was cancelled.
    """
    # Through a list: packages keep tracebacks of imports that failed, and with them the frames of
    # this thread; a result that is a local of one of those would live for ever.
    results: list[T] = []
    thread = _Call(lambda: results.append(call()))
    try:
        await thread.ended()
    except asyncio.CancelledError:
        if interrupt is not None:
            interrupt()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_TIMEOUT_S):
                await thread.ended()
                if discard is not None and results:
                    await _Call(lambda: discard(results.pop())).ended()
        raise
    if thread.error is not None:
        raise thread.error
    return results.pop()


def calls_go_on() -> bool:
    """Whether a call is still running; the interpreter cannot end cleanly beside one."""
    return any(isinstance(thread, _Call) for thread in threading.enumerate())


class _Call(threading.Thread):
    """A running call, which no exit waits for."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__(name="polyvec-engine", daemon=True)
        self._call = call
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 - raised again where the call is awaited
            self.error = error

    async def ended(self) -> None:
        while self.is_alive():
            await asyncio.sleep(_POLL_S)
