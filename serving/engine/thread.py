"""A thread for one call that takes long and returns something that must be let go of.

`asyncio.to_thread` keeps its result in a chain of futures; vLLM freezes the garbage collector's heap
while it starts, so that such a chain is never collected. Knows nothing of what is called.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.02


async def in_own_thread(
    call: Callable[[], T],
    *,
    interrupt: Callable[[], None] | None = None,
    discard: Callable[[T], None] | None = None,
) -> T:
    """Run `call` and return its result, leaving no reference to it; cancelling waits for the call.

    Args:
        call: what to run.
        interrupt: called when this is cancelled; makes `call` end soon.
        discard: given the result that `call` returned after this was cancelled.
    """
    # Through a list: packages keep tracebacks of imports that failed, and with them the frames of
    # this thread; a result that is a local of one of those would live for ever.
    results: list[T] = []
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="polyvec-engine") as executor:
        future = executor.submit(lambda: results.append(call()))
        try:
            await _until_done(future)
        except asyncio.CancelledError:
            if interrupt is not None:
                interrupt()
            await _until_done(future)
            if discard is not None and results:
                await _until_done(executor.submit(discard, results.pop()))
            raise
        future.result()
    return results.pop()


async def _until_done(future: Future[None]) -> None:
    while not future.done():
        await asyncio.sleep(_POLL_S)
