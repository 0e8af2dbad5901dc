"""An engine that lives, dies and hangs, and what its callers see of it."""

import asyncio
import math
from contextlib import suppress

import pytest

from serving.engine.protocol import Engine, Pooled, TextPrompt
from serving.errors import (
    EngineDeadError,
    EngineError,
    EngineStartError,
    InputError,
)
from serving.supervisor import EngineState, RestartPolicy, SupervisedEngine
from tests.serving.scripted import POLICY, TEXT, ScriptedEngine, stage

pytestmark = pytest.mark.usefixtures("impatient")


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


def test_a_long_call_of_which_prompts_are_answered_is_no_hanging_engine(run) -> None:
    async def scenario() -> None:
        async with stage() as seen:
            await seen.until(EngineState.READY)
            first = seen.inner
            call = await seen.in_flight()
            loop = asyncio.get_running_loop()
            until = loop.time() + 3 * POLICY.stall_timeout_s
            while loop.time() < until:
                first.num_answered += 1
                await asyncio.sleep(0.02)
            assert not call.done()
            assert seen.states[-1] is EngineState.READY
            # Now it hangs.
            with pytest.raises(EngineDeadError, match=r"stall_timeout_s.*max_batch_tokens"):
                await call
            await seen.until(EngineState.READY)
            assert seen.inner is not first

    run(scenario())


def test_an_engine_whose_answers_are_of_no_use_is_probed_and_replaced_under_load(run) -> None:
    async def scenario() -> None:
        async with stage() as seen:
            await seen.until(EngineState.READY)
            first = seen.inner
            first.is_useless = True
            while seen.inner is first:
                with suppress(EngineError):
                    await seen.embed()
                await asyncio.sleep(0.001)
            await seen.until(EngineState.READY)
            assert isinstance((await seen.embed())[0], Pooled)

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
