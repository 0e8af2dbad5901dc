"""One engine from its start to its death: calls in flight fail the moment it dies, even if it hangs.

Knows the Engine protocol and when answers came; not why an engine is started or started again.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from pooling import NonFiniteError, require_finite
from serving.engine.protocol import CountsAnswers, Engine, Outcome, Pooled, Prompt, Want
from serving.errors import EngineDeadError, EngineError, EngineStoppedError, InputError

T = TypeVar("T")


# vLLM is given 20 s to end by itself, then it is killed; twice that is a hang of ours.
CLOSE_TIMEOUT_S = 45.0
_CANCEL_TIMEOUT_S = 1.0


class Life:
    """A running engine, its calls in flight, and how long it has been silent."""

    def __init__(
        self, engine: Engine, clock: Callable[[], float], on_death: Callable[[EngineError], None]
    ) -> None:
        self._engine = engine
        self._counter = engine if isinstance(engine, CountsAnswers) else None
        self._num_answered = 0
        self._clock = clock
        self._on_death = on_death
        self._calls: dict[asyncio.Task[list[Outcome]], asyncio.Future[list[Outcome]]] = {}
        self._answered_at = self._waiting_since = clock()
        self.death: asyncio.Future[EngineError] = asyncio.get_running_loop().create_future()
        """Done when the engine has died; its result says why."""

    def idle_s(self) -> float:
        """Seconds since the engine last gave vectors."""
        return self._clock() - self._answered_at

    def silent_s(self) -> float:
        """Seconds for which the engine has had work and answered nothing; 0 without work.

        An answer counts when this is called next: ask often.
        """
        self._look()
        return self._clock() - self._waiting_since if self._calls else 0.0

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        """Embed with the engine; see `Engine.embed`. Cancelling cancels the engine's work.

        Raises:
            EngineError: the engine cannot answer, or died or was closed meanwhile.
        """
        if self.death.done():
            raise _same(self.death.result())
        # The call runs in a task of its own: a hanging engine may not even react to cancelling.
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Outcome]] = loop.create_future()
        work = loop.create_task(self._work(prompts, want))
        if not self._calls:
            self._waiting_since = self._clock()
        self._calls[work] = answer
        work.add_done_callback(self._finish)
        try:
            return await answer
        finally:
            work.cancel()

    async def probe(self, prompt: Prompt) -> EngineError | None:
        """Ask for one vector; what is wrong with the engine, or None."""
        try:
            (outcome,) = await self.embed([prompt], Want(single=True))
            if isinstance(outcome, InputError) or outcome.single is None:
                return EngineDeadError(f"The engine did not embed its probe, but gave {outcome!r}.")
            require_finite(outcome.single)
        except (EngineError, NonFiniteError) as error:
            return EngineDeadError(f"The engine did not embed its probe: {error}")
        return None

    async def check(self, timeout_s: float) -> None:
        """Die if the engine itself says that it is dead; an idle one is asked for nothing else."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._engine.check_health()
        except (EngineDeadError, EngineStoppedError) as error:
            self.die(error)
        except (EngineError, TimeoutError):
            return  # it says no more than that it is busy; probes tell

    def die(self, error: EngineError) -> None:
        """Fail every call in flight with `error`, now; a second call does nothing."""
        if self.death.done():
            return
        self.death.set_result(error)
        for work, answer in self._calls.items():
            if not answer.done():
                answer.set_exception(_same(error))
            work.cancel()
        self._on_death(error)

    async def end(self, error: EngineError) -> bool:
        """`die`, then close the engine; whether it had closed within `CLOSE_TIMEOUT_S`."""
        self.die(error)
        if self._calls:
            await asyncio.wait(list(self._calls), timeout=_CANCEL_TIMEOUT_S)
        return await close_engine(self._engine)

    async def _work(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        return await self._engine.embed(prompts, want)

    def _finish(self, work: asyncio.Task[list[Outcome]]) -> None:
        answer = self._calls.pop(work)
        error = None if work.cancelled() else work.exception()
        if error is None and not work.cancelled():
            self._note_answer(work.result())
        if isinstance(error, EngineDeadError | EngineStoppedError):
            self.die(error)
        if answer.done():
            return
        if work.cancelled():
            answer.set_exception(EngineStoppedError("The engine dropped the call. Try again."))
        elif error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(work.result())

    def _look(self) -> None:
        """Prompts of calls that have not ended are answers too: a long call is not a silent engine."""
        if self._counter is not None and self._counter.num_answered != self._num_answered:
            self._num_answered = self._counter.num_answered
            # Not that it is well: what it answers may be of no use, and is looked at with the call's end.
            self._waiting_since = self._clock()

    def _note_answer(self, outcomes: Sequence[Outcome]) -> None:
        # A refused input says nothing of the engine: it may never have seen it.
        if any(isinstance(outcome, Pooled) for outcome in outcomes):
            self._answered_at = self._waiting_since = self._clock()


async def close_engine(engine: Engine) -> bool:
    """Close `engine`; whether it had closed within `CLOSE_TIMEOUT_S`, without errors."""

    async def close() -> None:
        await engine.close()

    return await finished(asyncio.create_task(close()), CLOSE_TIMEOUT_S)


async def finished(task: asyncio.Task[T], timeout_s: float) -> bool:
    """Wait for `task` without taking its error; whether it returned in time.

    Cancelling the caller leaves the task running: what closes an engine is to be finished.
    """
    await asyncio.wait({task}, timeout=timeout_s)
    return task.done() and not task.cancelled() and task.exception() is None


def _same(error: EngineError) -> EngineError:
    """A copy for one more caller: a shared exception would collect all their tracebacks."""
    return type(error)(str(error))
