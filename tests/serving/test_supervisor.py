"""An engine that dies, hangs or does not start, and what its callers see of it."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat

import pytest
import torch
import uvloop

from serving.engine.protocol import Engine, Outcome, Pooled, Prompt, TextPrompt, Want
from serving.errors import (
    CheckpointError,
    EngineDeadError,
    EngineError,
    EngineStartError,
    EngineStoppedError,
    InputError,
)
from serving.supervisor import EngineState, RestartPolicy, SupervisedEngine

PROBE = TextPrompt((0,))
TEXT = TextPrompt((7, 8))
SINGLE = Want(single=True)
POLICY = RestartPolicy(probe_interval_s=0.02, stall_timeout_s=0.3, max_restarts=1, window_s=900)


class ScriptedEngine:
    """Answers with the prompt's first token id until it is told to hang or to die."""

    max_tokens = 16

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.is_dead = False
        self.says_so = True
        self.ignores_cancelling = False
        self.probe_value = 1.0
        self.num_probes = 0
        self.num_cancelled = 0
        self.is_closed = False

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        self.num_probes += prompts[0] is PROBE
        await self._wait()
        if self.is_dead:
            raise EngineDeadError("The core died.")
        return [self._outcome(prompt) for prompt in prompts]

    async def _wait(self) -> None:
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            if not self.ignores_cancelling:
                raise
            await self.answers.wait()

    def _outcome(self, prompt: Prompt) -> Outcome:
        if prompt.token_ids == (404,):
            return InputError("This input is bad.")
        value = self.probe_value if prompt is PROBE else float(prompt.token_ids[0])
        return Pooled(prompt.token_ids, torch.tensor([value]), None)

    async def check_health(self) -> None:
        if self.is_dead and self.says_so:
            raise EngineDeadError("The core died.")

    async def close(self) -> None:
        self.is_closed = True
        self.answers.set()

    def die(self) -> None:
        self.is_dead = True
        self.answers.set()


@dataclass
class Stage:
    """What a test sees of one supervised engine."""

    engine: SupervisedEngine
    started: list[ScriptedEngine]
    states: list[EngineState] = field(default_factory=list)
    given_up: list[EngineError] = field(default_factory=list)

    @property
    def inner(self) -> ScriptedEngine:
        return self.started[-1]

    async def until(self, state: EngineState) -> None:
        while self.engine.state is not state:
            await asyncio.sleep(0.005)

    async def embed(self, *prompts: Prompt) -> list[Outcome]:
        return await self.engine.embed(prompts or (TEXT,), SINGLE)

    async def in_flight(self) -> "asyncio.Task[list[Outcome]]":
        """A call that the engine holds."""
        self.inner.answers.clear()
        call = asyncio.create_task(self.embed())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return call


Starting = Callable[[], Awaitable[Engine]]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.life._CANCEL_TIMEOUT_S", 0.05)
    monkeypatch.setattr("serving.supervisor._MAX_BACKOFF_S", 0.01)


@asynccontextmanager
async def stage(
    policy: RestartPolicy = POLICY,
    failures: Sequence[Exception | None] = (),
    lock: asyncio.Lock | None = None,
    clock: Callable[[], float] | None = None,
):
    started: list[ScriptedEngine] = []
    outcomes: Iterator[Exception | None] = chain(failures, repeat(None))

    async def start() -> Engine:
        failure = next(outcomes)
        if failure is not None:
            raise failure
        started.append(ScriptedEngine())
        return started[-1]

    states: list[EngineState] = []
    given_up: list[EngineError] = []
    engine = SupervisedEngine(
        start,
        PROBE,
        16,
        policy,
        on_give_up=given_up.append,
        on_change=states.append,
        starting=lock,
        **({} if clock is None else {"clock": clock}),
    )
    engine.start()
    async with asyncio.timeout(20):
        yield Stage(engine, started, states, given_up)
        await engine.close()
    assert all(inner.is_closed for inner in started)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run_scenario(scenario: Awaitable[None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(scenario)

    return run_scenario


def test_an_engine_is_ready_once_it_has_answered(run) -> None:
    async def scenario() -> None:
        async with stage() as seen:
            assert seen.engine.max_tokens == 16
            with pytest.raises(EngineStartError, match="still starting"):
                await seen.embed()
            with pytest.raises(EngineStartError, match="still starting"):
                await seen.engine.check_health()
            await seen.until(EngineState.READY)
            assert seen.inner.num_probes == 1
            await seen.engine.check_health()
            (good, bad) = await seen.embed(TEXT, TextPrompt((404,)))
            assert isinstance(good, Pooled)
            assert good.single.tolist() == [7.0]
            assert isinstance(bad, InputError)
        assert seen.states == [EngineState.READY, EngineState.CLOSED]

    run(scenario())


def test_a_dying_engine_fails_its_calls_and_is_replaced(run) -> None:
    async def scenario() -> None:
        async with stage() as seen:
            await seen.until(EngineState.READY)
            first = seen.inner
            calls = [await seen.in_flight(), await seen.in_flight()]
            first.die()
            for call in calls:
                with pytest.raises(EngineDeadError, match="The core died"):
                    await call
            assert seen.engine.state is EngineState.DEAD
            with pytest.raises(EngineDeadError, match="being started again"):
                await seen.embed()
            with pytest.raises(EngineDeadError, match="being started again"):
                await seen.engine.check_health()
            await seen.until(EngineState.READY)
            assert first.is_closed
            assert seen.inner is not first
            (outcome,) = await seen.embed()
            assert isinstance(outcome, Pooled)
        assert seen.states[:3] == [EngineState.READY, EngineState.DEAD, EngineState.READY]
        assert seen.given_up == []

    run(scenario())


def test_an_idle_engine_that_died_is_found_by_its_probe(run) -> None:
    async def scenario() -> None:
        async with stage() as seen:
            await seen.until(EngineState.READY)
            seen.inner.says_so = False
            seen.inner.die()
            await seen.until(EngineState.DEAD)
            await seen.until(EngineState.READY)
            assert len(seen.started) == 2

    run(scenario())


def test_an_idle_engine_that_says_it_is_dead_is_replaced_before_it_is_probed(run) -> None:
    async def scenario() -> None:
        async with stage(RestartPolicy(3600, 3600, 1, 900)) as seen:
            await seen.until(EngineState.READY)
            first = seen.inner
            first.is_dead = True
            await seen.until(EngineState.DEAD)
            await seen.until(EngineState.READY)
            assert first.num_probes == 1
            assert seen.inner is not first

    run(scenario())


@pytest.mark.parametrize("ignored", ["busy", "hanging"])
def test_an_engine_that_does_not_say_how_it_is_stays(run, ignored: str) -> None:
    async def scenario() -> None:
        async with stage() as seen:
            await seen.until(EngineState.READY)
            num_asked = 0

            async def check_health() -> None:
                nonlocal num_asked
                num_asked += 1
                if ignored == "hanging":
                    await asyncio.Event().wait()
                raise EngineError("Busy.")

            seen.inner.check_health = check_health
            while num_asked < 3:
                await asyncio.sleep(0.005)
            assert len(seen.started) == 1
            assert EngineState.DEAD not in seen.states

    run(scenario())


@pytest.mark.parametrize("probe_value", [math.nan, math.inf])
def test_an_engine_that_answers_nonsense_is_dead(run, probe_value: float) -> None:
    async def scenario() -> None:
        async with stage() as seen:
            await seen.until(EngineState.READY)
            seen.inner.probe_value = probe_value
            await seen.until(EngineState.DEAD)
            await seen.until(EngineState.READY)

    run(scenario())


def test_an_engine_that_refuses_its_probe_never_becomes_ready(run) -> None:
    async def scenario() -> None:
        given_up: list[EngineError] = []

        async def start() -> Engine:
            return ScriptedEngine()

        engine = SupervisedEngine(start, TextPrompt((404,)), 16, POLICY, on_give_up=given_up.append)
        engine.start()
        while not given_up:
            await asyncio.sleep(0.005)
        assert engine.state is EngineState.FAILED
        assert "did not embed its probe" in str(given_up[0])
        await engine.close()

    run(scenario())


def test_a_hanging_engine_is_unresponsive_then_dead_and_its_calls_fail_though_it_hangs(run) -> None:
    async def scenario() -> None:
        async with stage() as seen:
            await seen.until(EngineState.READY)
            first = seen.inner
            first.ignores_cancelling = True
            call = await seen.in_flight()
            await seen.until(EngineState.UNRESPONSIVE)
            with pytest.raises(EngineError, match="has not answered for a while"):
                await seen.engine.check_health()
            assert not call.done()
            with pytest.raises(EngineDeadError, match="answered nothing for"):
                await call
            await seen.until(EngineState.READY)
            assert seen.inner is not first

    run(scenario())


def test_an_engine_that_answers_again_is_ready_again(run) -> None:
    async def scenario() -> None:
        patient = RestartPolicy(0.02, 60, 1, 900)
        async with stage(patient) as seen:
            await seen.until(EngineState.READY)
            call = await seen.in_flight()
            await seen.until(EngineState.UNRESPONSIVE)
            more = asyncio.create_task(seen.embed())
            await asyncio.sleep(0)
            seen.inner.answers.set()
            assert isinstance((await call)[0], Pooled)
            assert isinstance((await more)[0], Pooled)
            await seen.until(EngineState.READY)
            assert len(seen.started) == 1

    run(scenario())


def test_an_engine_that_answers_calls_is_not_asked(run) -> None:
    async def scenario() -> None:
        async with stage(RestartPolicy(0.2, 60, 1, 900)) as seen:
            await seen.until(EngineState.READY)
            for _ in range(30):
                await seen.embed()
                await asyncio.sleep(0.01)
            assert seen.inner.num_probes == 1

    run(scenario())


def test_refused_inputs_do_not_count_as_answers(run) -> None:
    async def scenario() -> None:
        async with stage() as seen:
            await seen.until(EngineState.READY)
            num_probes = seen.inner.num_probes
            while seen.inner.num_probes < num_probes + 2:
                assert isinstance((await seen.embed(TextPrompt((404,))))[0], InputError)
                await asyncio.sleep(0.001)

    run(scenario())


def test_cancelling_a_call_cancels_the_engines_work(run) -> None:
    async def scenario() -> None:
        async with stage() as seen:
            await seen.until(EngineState.READY)
            call = await seen.in_flight()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.sleep(0)
            assert seen.inner.num_cancelled >= 1
            seen.inner.answers.set()
            assert isinstance((await seen.embed())[0], Pooled)
            assert seen.engine.state is EngineState.READY

    run(scenario())


@pytest.mark.parametrize(
    "failure",
    [EngineStartError("No memory."), CheckpointError("No such directory."), MemoryError("bug")],
)
def test_a_first_start_that_fails_is_not_tried_again(run, failure: Exception) -> None:
    async def scenario() -> None:
        async with stage(failures=[failure]) as seen:
            await seen.until(EngineState.FAILED)
            assert seen.started == []
            (error,) = seen.given_up
            assert isinstance(error, EngineStartError)
            assert str(failure) in str(error)
            with pytest.raises(EngineDeadError, match="does not stay up"):
                await seen.embed()
        assert seen.states == [EngineState.FAILED]

    run(scenario())


def test_an_engine_is_given_up_after_too_many_restarts(run) -> None:
    async def scenario() -> None:
        async with stage(RestartPolicy(0.02, 0.3, 2, 900)) as seen:
            for _ in range(3):
                await seen.until(EngineState.READY)
                seen.inner.die()
                await asyncio.sleep(0)
                while seen.engine.state is EngineState.READY:
                    await asyncio.sleep(0.005)
            await seen.until(EngineState.FAILED)
            assert len(seen.started) == 3
            assert len(seen.given_up) == 1
            assert all(inner.is_closed for inner in seen.started)

    run(scenario())


def test_a_restart_that_fails_counts_as_one(run) -> None:
    async def scenario() -> None:
        failures = [None, EngineStartError("once"), EngineStartError("twice")]
        async with stage(RestartPolicy(0.02, 0.3, 2, 900), failures) as seen:
            await seen.until(EngineState.READY)
            seen.inner.die()
            await seen.until(EngineState.FAILED)
            assert [str(error) for error in seen.given_up] == ["twice"]

    run(scenario())


def test_restarts_long_ago_are_forgotten(run) -> None:
    async def scenario() -> None:
        hours = [0.0]
        patient = RestartPolicy(0.02, 1e9, 1, 60)
        async with stage(patient, clock=lambda: hours[0] * 3600) as seen:
            for _ in range(4):
                await seen.until(EngineState.READY)
                call = await seen.in_flight()
                seen.inner.die()
                with pytest.raises(EngineDeadError):
                    await call
                hours[0] += 1
            await seen.until(EngineState.READY)
            assert seen.given_up == []

    run(scenario())


def test_closing_fails_what_is_in_flight_and_everything_after(run) -> None:
    async def scenario() -> None:
        async with stage() as seen:
            await seen.until(EngineState.READY)
            call = await seen.in_flight()
            await asyncio.gather(seen.engine.close(), seen.engine.close())
            with pytest.raises(EngineStoppedError):
                await call
            with pytest.raises(EngineStoppedError):
                await seen.embed()
            with pytest.raises(EngineStoppedError):
                await seen.engine.check_health()
            seen.engine.start()
            assert seen.engine.state is EngineState.CLOSED
            assert seen.inner.is_closed

    run(scenario())


def test_closing_breaks_off_a_start_and_closes_what_came_up_meanwhile(run) -> None:
    async def scenario() -> None:
        late = ScriptedEngine()
        begun = asyncio.Event()

        async def start() -> Engine:
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return late  # it was up when it was told to stop
            return late

        engine = SupervisedEngine(start, PROBE, 16, POLICY, on_give_up=pytest.fail)
        engine.start()
        await begun.wait()
        await engine.close()
        assert engine.state is EngineState.CLOSED
        assert late.is_closed

    run(scenario())


def test_closing_waits_for_a_dead_engine_that_is_being_closed(run) -> None:
    async def scenario() -> None:
        async with stage() as seen:
            await seen.until(EngineState.READY)
            inner, closed = seen.inner, asyncio.Event()

            async def close() -> None:
                await closed.wait()
                inner.is_closed = True

            inner.close = close
            call = await seen.in_flight()
            inner.die()
            with pytest.raises(EngineDeadError):
                await call
            closing = asyncio.create_task(seen.engine.close())
            await asyncio.sleep(0.02)
            assert not closing.done()
            closed.set()
            await closing
            assert inner.is_closed

    run(scenario())


def test_an_engine_that_was_never_started_closes() -> None:
    async def start() -> Engine:
        return ScriptedEngine()

    engine = SupervisedEngine(start, PROBE, 16, POLICY, on_give_up=pytest.fail)
    asyncio.run(engine.close())
    assert engine.state is EngineState.CLOSED


def test_engines_of_one_accelerator_start_one_after_the_other(run) -> None:
    async def scenario() -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        async with stage(lock=lock) as first, stage(lock=lock) as second:
            await asyncio.sleep(0.02)
            assert first.started == second.started == []
            lock.release()
            await first.until(EngineState.READY)
            await second.until(EngineState.READY)
            first.inner.die()
            await first.until(EngineState.DEAD)
            assert isinstance((await second.embed())[0], Pooled)

    run(scenario())
