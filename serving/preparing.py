"""The few threads that tokenise texts and measure images, for all engines of the process.

They are not the event loop's own threads: those pool, decode and encode, and must not wait behind long
texts whose callers have left. A server gives them out in turns (`serving.places`), a piece at a time. Knows
nothing of what is called.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from serving.neighbours import neighbours

T = TypeVar("T")

# Tokenising uses all cores by itself; the second is for whoever comes while the first has a long text.
NUM_THREADS = 2

# A tenth of a second of one core, but for one text that is longer: who comes meanwhile does not wait longer.
_PIECE_CHARS = 256 * 1024
_PIECE_ITEMS = 256


def pieces(items: Sequence[T], num_chars: Callable[[T], int]) -> list[slice]:
    """Cut `items` into neighbours that are prepared in one go."""
    return neighbours(map(num_chars, items), max_size=_PIECE_CHARS, max_number=_PIECE_ITEMS)


async def in_preparing_thread(call: Callable[[], T]) -> T:
    """Run `call`; it is not started any more when this is cancelled while it waits for a thread."""
    return await asyncio.get_running_loop().run_in_executor(_executor(), call)


@cache
def _executor() -> ThreadPoolExecutor:
    # Its threads are joined when the interpreter exits.
    return ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="polyvec-prepare")
