"""An engine for a job: who wants it waits until it is up, and a row that ends it does not end the job.

`SupervisedEngine` starts it again; this decides when that is enough. Knows neither chunks nor files.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

from serving.engine.protocol import Engine
from serving.errors import EngineDeadError, EngineError
from serving.inputs import Text
from serving.prompts import Prompter
from serving.settings.batch import BatchSettings
from serving.starts import Starts
from serving.supervisor import EngineState, RestartPolicy, SupervisedEngine

StartEngine = Callable[[Path, BatchSettings], Awaitable[Engine]]

_UP = (EngineState.READY, EngineState.UNRESPONSIVE)


class KeptEngine:
    """An engine that is started again, within `max_engine_restarts`, and waited for."""

    def __init__(
        self,
        start: StartEngine,
        directory: Path,
        prompter: Prompter,
        settings: BatchSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is started yet.

        Args:
            start: starts an engine on the checkpoint in `directory`.
            directory: one merged task.
            prompter: the checkpoint's.
            settings: the job's.
            clock: seconds that only grow.
        """
        self._settings, self._clock = settings, clock
        self._starts = Starts(
            lambda path: start(path, settings),
            may_overlap=lambda: True,
            timeout_s=settings.engine_start_timeout_s,
        )
        self._starts.allow()
        self._directory = directory
        self._deaths: deque[float] = deque()
        self._num_starts = 0
        """Since the engine was last up."""
        self._was_up = False
        self._changed = asyncio.Event()
        self.failure: EngineError | None = None
        """Why the engine was given up, or None."""
        self.last_error: EngineError | None = None
        """What the engine, or its last call, ended with."""
        self.is_suspected: bool = True
        """Whether the engine is blamed when it dies, and not the only row that it had."""
        self.engine = SupervisedEngine(
            self._start,
            prompter.text_prompts([Text("")], prompt_name=None, max_length=1)[0],
            settings.max_model_tokens or prompter.manifest.max_text_tokens,
            # Who is to blame is not known there, so what is enough is decided here.
            RestartPolicy(
                probe_interval_s=settings.probe_interval_s,
                stall_timeout_s=settings.stall_timeout_s,
                max_restarts=None,
                window_s=settings.engine_restart_window_s,
            ),
            on_give_up=self._give_up,
            on_change=self._note,
        )

    def start(self) -> None:
        """Start the engine in the background, on the running loop."""
        self.engine.start()

    async def ready(self) -> None:
        """Wait until the engine takes calls.

        Raises:
            EngineError: it was given up.
        """
        while True:
            if self.failure is not None:
                raise type(self.failure)(str(self.failure))
            if self.engine.state in _UP:
                return
            self._changed.clear()
            await self._changed.wait()

    def forgive(self) -> None:
        """A row was found that ends the engine: its death no longer counts."""
        if self._deaths:
            self._deaths.pop()

    async def close(self) -> None:
        """Stop the engine and every process it started."""
        await self.engine.close()

    async def _start(self) -> Engine:
        now = self._clock()
        self._num_starts += 1
        if self._was_up:
            while self._deaths and self._deaths[0] <= now - self._settings.engine_restart_window_s:
                self._deaths.popleft()
            allowed = self._settings.max_engine_restarts
            if len(self._deaths) > allowed or self._num_starts > max(1, allowed):
                self._give_up(self._spent())
                raise self._spent()
        try:
            return await self._starts.start(self._directory)
        except EngineError as error:
            self.last_error = error
            raise

    def _spent(self) -> EngineError:
        reason = f" Its last words: {self.last_error}" if self.last_error is not None else ""
        return EngineDeadError(
            f"The engine does not stay up: more than {self._settings.max_engine_restarts} restarts within "
            f"{self._settings.engine_restart_window_s:g} s (max_engine_restarts).{reason}"
        )

    def _note(self, state: EngineState) -> None:
        if state in _UP:
            self._was_up, self._num_starts = True, 0
        if state is EngineState.DEAD and self.is_suspected:
            self._deaths.append(self._clock())
        self._changed.set()

    def _give_up(self, error: EngineError) -> None:
        if self.failure is None:
            self.failure = error
        self._changed.set()


def broken(num_rows: int, last: EngineError | None) -> EngineError:
    """What is said when one row after the other ends the engine."""
    return EngineDeadError(
        f"The engine died on each of {num_rows} rows in a row, so it is the engine and not the rows. "
        f"Its last words: {last}"
    )
