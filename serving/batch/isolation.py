"""Finding the row that ends an engine: what was begun and not ended, and who has the engine alone.

A process that dies cannot say under what. So an attempt leaves a mark before it begins and takes it
back when it ends, also when it ends badly; what is marked and not running died. Knows names and marks;
not what is attempted.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Attempts:
    """Marks of attempts, in a directory that outlives processes: one file a name, one byte an attempt."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def count(self, name: str) -> int:
        """Attempts begun since the last one that ended."""
        try:
            return (self._directory / name).stat().st_size
        except FileNotFoundError:
            return 0

    def begin(self, name: str) -> int:
        """Mark an attempt; how many there are with this one.

        Raises:
            OSError: the directory cannot be written to.
        """
        with (self._directory / name).open("ab") as file:
            file.write(b".")
        return self.count(name)

    def end(self, name: str) -> None:
        """Take all marks of `name` back."""
        (self._directory / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything, as at the start of a run: whoever ended the last one was no row."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in self._directory.iterdir():
            path.unlink(missing_ok=True)


class Turnstile:
    """Many at once, or one alone; who wants to be alone comes before who comes later."""

    def __init__(self) -> None:
        self._num_inside = 0
        self._alone = asyncio.Lock()
        self._empty = asyncio.Event()
        self._empty.set()

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Enter while nobody is, or waits to be, alone."""
        async with self._alone:
            self._num_inside += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._num_inside -= 1
            if self._num_inside == 0:
                self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until nobody is inside, and let nobody in."""
        async with self._alone:
            await self._empty.wait()
            yield
