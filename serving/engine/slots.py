"""Places of which several are taken at once, first come, first served. `asyncio.Semaphore` gives one at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """`total` places, for one event loop."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._freed = asyncio.Event()
        # Who is first waits for room, holding it: many for one would pass a large one for ever.
        self._first = asyncio.Lock()

    @asynccontextmanager
    async def taken(self, number: int) -> AsyncIterator[None]:
        """Wait until `number` places are free, at most `total`, and hold them."""
        assert number <= self.total
        async with self._first:
            while self._free < number:
                self._freed.clear()
                await self._freed.wait()
            self._free -= number
        try:
            yield
        finally:
            self._free += number
            self._freed.set()
