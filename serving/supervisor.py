"""An engine that stays up: asked regularly whether it answers, closed and started again when it does not.

Stands wherever an `Engine` does. Knows how to start one, and when to stop trying; knows neither HTTP nor
vLLM, nor what the process does about an engine that was given up.
"""

import asyncio
import enum
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from serving.engine.protocol import Engine, Outcome, Prompt, Want
from serving.errors import (
    EngineDeadError,
    EngineError,
    EngineStartError,
    EngineStoppedError,
    PolyvecError,
)
from serving.life import CLOSE_TIMEOUT_S, Life, close_engine, finished

_log = logging.getLogger(__name__)

# A probe that waits behind a full queue takes a while; three intervals of complete silence are no queue.
_UNRESPONSIVE_INTERVALS = 3
_MAX_BACKOFF_S = 30.0
# How long an idle engine may be dead and still be called ready.
_MAX_TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When an engine is asked, taken for dead, and given up.

    Attributes:
        probe_interval_s: an engine that has answered nothing for this long is asked for one token.
        stall_timeout_s: an engine with work that answers no prompt for this long is taken for dead.
        max_restarts: restarts within `window_s`; one more gives the engine up. None: no number does.
        window_s: see `max_restarts`.
    """

    probe_interval_s: float
    stall_timeout_s: float
    max_restarts: int | None
    window_s: float


class EngineState(enum.Enum):
    """Where a supervised engine stands."""

    STARTING = "starting"
    READY = "ready"
    UNRESPONSIVE = "unresponsive"
    """A probe is overdue and nothing else is answered either; calls are still taken."""
    DEAD = "dead"
    """It died and is being started again."""
    FAILED = "failed"
    """It was given up."""
    CLOSED = "closed"


class SupervisedEngine:
    """An `Engine` around a start function; never waits for a restart, but fails calls until it is over."""

    def __init__(
        self,
        start: Callable[[], Awaitable[Engine]],
        probe: Prompt,
        max_tokens: int,
        policy: RestartPolicy,
        *,
        on_give_up: Callable[[EngineError], None],
        on_change: Callable[[EngineState], None] | None = None,
        name: str = "engine",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is started yet.

        Args:
            start: starts an engine; when cancelled it must leave nothing behind.
            probe: a short prompt, embedded to see whether the engine answers.
            max_tokens: longest prompt the engine will take; asked for before it is up.
            policy: when to ask, to restart and to give up.
            on_give_up: called once, when the first start fails or restarts are used up.
            on_change: called with every new state.
            name: what logs call the engine.
            clock: seconds that only grow.
        """
        self._start_engine = start
        self._probe = probe
        self.max_tokens: int = max_tokens
        self._policy = policy
        self._on_give_up = on_give_up
        self._on_change = on_change
        self._name = name
        self._clock = clock
        self._state = EngineState.STARTING
        self._life: Life | None = None
        self._ending: asyncio.Task[None] | None = None
        self._was_up = False
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> EngineState:
        """Where the engine stands now."""
        return self._state

    @property
    def is_up(self) -> bool:
        """Whether it is ready."""
        return self._state is EngineState.READY

    def start(self) -> None:
        """Start the engine in the background, on the running loop; a second call does nothing."""
        if self._task is None and self._state is EngineState.STARTING:
            self._task = asyncio.create_task(self._supervise(), name=f"supervise {self._name}")
            self._task.add_done_callback(self._ended)

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        """Embed `prompts`; see `Engine.embed`. Fails at once while there is no engine."""
        if self._life is None:
            raise self._unavailable()
        return await self._life.embed(prompts, want)

    async def check_health(self) -> None:
        """Return if the engine is ready; see `Engine.check_health`."""
        if self._state is not EngineState.READY:
            raise self._unavailable()

    async def close(self) -> None:
        """Fail what is in flight, close the engine or break off its start; see `Engine.close`."""
        if self._state not in (EngineState.FAILED, EngineState.CLOSED):
            self._enter(EngineState.CLOSED)
            if self._life is not None:
                self._life.die(self._unavailable())
            if self._task is not None:
                self._task.cancel()
        if self._task is not None:
            await asyncio.wait({self._task})
        if self._ending is not None:
            await asyncio.wait({self._ending})

    def _unavailable(self) -> EngineError:
        match self._state:
            case EngineState.STARTING:
                return EngineStartError("The engine is still starting. Try again in a minute.")
            case EngineState.READY | EngineState.UNRESPONSIVE:
                return EngineError("The engine has not answered for a while. Try again.")
            case EngineState.DEAD:
                return EngineDeadError("The engine died and is being started again. Try again.")
            case EngineState.FAILED:
                return EngineDeadError("The engine does not stay up. Its own report is in the log.")
            case EngineState.CLOSED:
                return EngineStoppedError("The engine is closed. Load the checkpoint again.")
            case _:
                assert_never(self._state)

    def _enter(self, state: EngineState) -> None:
        if state is not self._state:
            self._state = state
            if self._on_change is not None:
                self._on_change(state)

    async def _supervise(self) -> None:
        restarts: deque[float] = deque()
        while True:
            error = await self._one_life()
            now = self._clock()
            while restarts and restarts[0] <= now - self._policy.window_s:
                restarts.popleft()
            # An engine that never came up has a mistake in its configuration, which stays.
            allowed = self._policy.max_restarts
            if not self._was_up or (allowed is not None and len(restarts) >= allowed):
                self._give_up(error)
                return
            self._enter(EngineState.DEAD)
            restarts.append(now)
            backoff_s = min(2.0 ** (len(restarts) - 1), _MAX_BACKOFF_S)
            _log.warning(
                "The %s is down (%s); restart %d%s in %g s.",
                self._name,
                type(error).__name__,
                len(restarts),
                "" if allowed is None else f" of {allowed}",
                backoff_s,
            )
            await asyncio.sleep(backoff_s)

    async def _one_life(self) -> EngineError:
        """Start an engine and stay with it until it is gone; why it went."""
        try:
            engine = await self._started()
        except EngineError as error:
            return error
        life = Life(engine, self._clock, self._died)
        try:
            return await self._watch(life)
        finally:
            self._life = None
            # A task, which goes on when this coroutine is cancelled to close everything.
            self._ending = asyncio.create_task(self._end(life))
            await asyncio.wait({self._ending})

    async def _end(self, life: Life) -> None:
        if not await life.end(EngineStoppedError("The engine was closed during the call.")):
            _log.error("The %s did not close; something of it may be left.", self._name)

    async def _started(self) -> Engine:
        async def start() -> Engine:
            return await self._start_engine()

        task = asyncio.create_task(start(), name=f"start {self._name}")
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            if await finished(task, CLOSE_TIMEOUT_S):
                await close_engine(task.result())
            raise
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, EngineError):
            raise error
        detail = str(error) if isinstance(error, PolyvecError) else repr(error)
        raise EngineStartError(f"The engine did not start: {detail}") from error

    async def _watch(self, life: Life) -> EngineError:
        """Ask whether the engine answers until it does not; why it is taken for dead."""
        probe = asyncio.create_task(life.probe(self._probe))
        tick_s = min(self._policy.probe_interval_s, self._policy.stall_timeout_s) / 4
        tick_s = min(tick_s, _MAX_TICK_S)
        try:
            while True:
                waiting_for: set[asyncio.Future[Any]] = {life.death}
                if not probe.done():
                    waiting_for.add(probe)
                await asyncio.wait(waiting_for, timeout=tick_s, return_when=asyncio.FIRST_COMPLETED)
                if probe.done() and (error := _verdict(probe)) is not None:
                    life.die(error)
                elif life.silent_s() >= self._policy.stall_timeout_s:
                    life.die(_stalled(life.silent_s()))
                else:
                    await life.check(tick_s)
                if life.death.done():
                    return life.death.result()
                self._judge(life, probe)
                if probe.done() and life.idle_s() >= self._policy.probe_interval_s:
                    probe = asyncio.create_task(life.probe(self._probe))
        finally:
            probe.cancel()

    def _judge(self, life: Life, probe: asyncio.Task[EngineError | None]) -> None:
        """Enter the state of an engine that is alive."""
        if self._life is None and not probe.done():
            return  # it is ready once it has answered its first probe
        overdue_s = _UNRESPONSIVE_INTERVALS * self._policy.probe_interval_s
        silent = not probe.done() and life.silent_s() >= overdue_s
        self._life, self._was_up = life, True
        self._enter(EngineState.UNRESPONSIVE if silent else EngineState.READY)

    def _died(self, error: EngineError) -> None:
        del error
        self._life = None
        if self._was_up and self._state is not EngineState.CLOSED:
            self._enter(EngineState.DEAD)

    def _give_up(self, error: EngineError) -> None:
        _log.error("The %s is given up (%s).", self._name, type(error).__name__)
        self._enter(EngineState.FAILED)
        self._on_give_up(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Nobody awaits the supervision; if it ends by a bug, the engine counts as given up."""
        if self._state in (EngineState.FAILED, EngineState.CLOSED):
            return
        error = None if task.cancelled() else task.exception()
        failure = EngineDeadError(f"The engine's supervision ended: {error!r}.")
        failure.__cause__ = error
        self._give_up(failure)


def _verdict(probe: asyncio.Task[EngineError | None]) -> EngineError | None:
    if probe.cancelled():
        return EngineDeadError("The engine's probe was cancelled.")
    error = probe.exception()
    # Whatever a probe raises, an engine that raises it does not answer.
    return probe.result() if error is None else EngineDeadError(f"The probe failed: {error!r}")


def _stalled(silent_s: float) -> EngineDeadError:
    return EngineDeadError(
        f"The engine had work and answered nothing for {silent_s:.0f} s (stall_timeout_s). If it was not stuck "
        "but slow, raise that, or lower max_batch_tokens so that a step takes less time."
    )
