"""The few threads that tokenise texts and measure images, for all engines of the process.

They are not the event loop's own threads: those pool, decode and encode, and must not wait behind long
texts whose callers have left. Knows nothing of what is called.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")

# Tokenising uses all cores by itself; the second is for whoever comes while the first has a long text.
_NUM_THREADS = 2


async def in_preparing_thread(call: Callable[[], T]) -> T:
    """Run `call`; it is not started any more when this is cancelled while it waits for a thread."""
    return await asyncio.get_running_loop().run_in_executor(_executor(), call)


@cache
def _executor() -> ThreadPoolExecutor:
    # Its threads are joined when the interpreter exits.
    return ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="polyvec-prepare")
