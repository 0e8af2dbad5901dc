"""How a watched engine is started, started again, given up and closed."""

import asyncio

import pytest

from serving.engine.protocol import Engine, Pooled
from serving.errors import (
    CheckpointError,
    EngineDeadError,
    EngineStartError,
    EngineStoppedError,
)
from serving.supervisor import EngineState, RestartPolicy, SupervisedEngine
from tests.serving.scripted import POLICY, PROBE, ScriptedEngine, stage

pytestmark = pytest.mark.usefixtures("impatient")


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


def test_engines_do_not_wait_for_each_other(run) -> None:
    async def scenario() -> None:
        async with stage() as first, stage() as second:
            await first.until(EngineState.READY)
            await second.until(EngineState.READY)
            first.inner.die()
            await first.until(EngineState.DEAD)
            assert isinstance((await second.embed())[0], Pooled)

    run(scenario())
