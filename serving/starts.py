"""When the engines of one server start: once it listens, in turns where they must, and not for ever.

Knows how to start an engine and whether engines may start at once; not what happens to them later.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from serving.engine.protocol import Engine
from serving.engine.thread import in_own_thread
from serving.errors import EngineStartError

T = TypeVar("T")


class Starts:
    """Starts engines for `Service.supervised`, which asks for them at once; they wait here."""

    def __init__(
        self,
        start: Callable[[Path], Awaitable[Engine]],
        *,
        may_overlap: Callable[[], bool],
        timeout_s: float,
    ) -> None:
        """Nothing is started before `allow`.

        Args:
            start: starts an engine on a directory.
            may_overlap: whether engines may start at once; engines that share an accelerator may not,
                since each measures its free memory. Asked once, in a thread: it may import for seconds.
            timeout_s: for the start of one engine, its turn not waited for.
        """
        self._start = start
        self._may_overlap = may_overlap
        self._timeout_s = timeout_s
        self._allowed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._overlaps: bool | None = None

    def allow(self) -> None:
        """Start what was and will be asked for."""
        self._allowed.set()

    async def start(self, directory: Path) -> Engine:
        """Start an engine on `directory`.

        Raises:
            EngineStartError: it did not come up, or not within `timeout_s`.
        """
        await self._allowed.wait()
        async with self._turn:
            # Before any engine starts: what it imports must not be imported by two threads at once.
            if self._overlaps is None:
                self._overlaps = await self._in_time(in_own_thread(self._may_overlap))
            if not self._overlaps:
                return await self._in_time(self._start(directory))
        return await self._in_time(self._start(directory))

    async def _in_time(self, starting: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await starting
        except TimeoutError as error:
            raise EngineStartError(
                f"The engine did not come up within {self._timeout_s:g} s. Its own report is in the log; "
                "a large model on a slow disk takes longer: raise engine_start_timeout_s."
            ) from error
