"""A thread for one call that takes long and returns something that must be let go of.

`asyncio.to_thread` keeps its result in a chain of futures; vLLM freezes the garbage collector's heap
while it starts, so that such a chain is never collected. Knows nothing of what is called.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.02


async def in_own_thread(call: Callable[[], T]) -> T:
    """Run `call` and return its result, leaving no reference to it; cancelling waits for the call."""
    # Through a list: packages keep tracebacks of imports that failed, and with them the frames of
    # this thread; a result that is a local of one of those would live for ever.
    results: list[T] = []
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="polyvec-engine") as executor:
        future = executor.submit(lambda: results.append(call()))
        while not future.done():
            await asyncio.sleep(_POLL_S)
        future.result()
    return results.pop()
