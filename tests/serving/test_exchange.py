"""Asking an engine core, with a small one in its place: what comes back, in any order or not at all."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from serving import EngineStoppedError
from serving.engine.exchange import Exchange
from serving.engine.orders import PARCEL_TEXTS
from serving.engine.protocol import Want
from serving.engine.worker.parcel import member, members

pytestmark = pytest.mark.engine

TEXTS = [[5, 6], [7], [8, 9, 10]]
WANT = Want(single=True)


class Core:
    """Takes requests, and gives what a test puts into `outputs`."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.aborted: list[str] = []
        self.outputs: asyncio.Queue[Any] = asyncio.Queue()

    async def add_request_async(self, request: Any) -> None:
        self.requests.append(request)

    async def get_output_async(self) -> Any:
        given = await self.outputs.get()
        if isinstance(given, Exception):
            raise given
        return SimpleNamespace(outputs=given)

    async def abort_requests_async(self, ids: list[str]) -> None:
        self.aborted += ids


def run(scenario: Callable[[Core, Exchange], Awaitable[None]]) -> None:
    def process_inputs(request_id: str, rendered: Any, params: Any, **options: Any) -> Any:
        return SimpleNamespace(request_id=request_id, prompt=rendered)

    async def main() -> None:
        core = Core()
        llm: Any = SimpleNamespace(
            engine_core=core, input_processor=SimpleNamespace(process_inputs=process_inputs)
        )
        async with asyncio.timeout(20):
            await scenario(core, Exchange(llm, lambda lengths, want: params(lengths)))

    asyncio.run(main())


def params(lengths: Sequence[int] = ()) -> Any:
    from vllm import PoolingParams

    return PoolingParams(task="embed", extra_kwargs={"lengths": list(lengths)})


def output(request_id: str, rows: torch.Tensor | None) -> Any:
    from vllm.v1.engine import EngineCoreOutput, FinishReason

    return EngineCoreOutput(
        request_id=request_id,
        new_token_ids=[],
        pooling_output=rows,
        finish_reason=FinishReason.ERROR if rows is None else FinishReason.STOP,
    )


async def asked(core: Core, exchange: Exchange) -> "asyncio.Task[list[torch.Tensor]]":
    before = len(core.requests)
    task = asyncio.create_task(exchange.texts(TEXTS, WANT))
    while len(core.requests) == before:
        await asyncio.sleep(0)
    return task


def test_a_parcels_outputs_are_put_together_whatever_their_order() -> None:
    async def scenario(core: Core, exchange: Exchange) -> None:
        first, second = await asked(core, exchange), await asked(core, exchange)
        one, two = (request.request_id for request in core.requests)
        assert core.requests[0].prompt_token_ids == [5, 6, 7, 8, 9, 10]
        assert exchange.num_waiting == 6
        rows = torch.arange(6.0).view(3, 2)
        core.outputs.put_nowait([output(member(two, 2), rows[2:]), output("unknown", rows)])
        core.outputs.put_nowait([output(members(one, 0, 2), rows + 10)])
        core.outputs.put_nowait([output(members(two, 0, 1), rows[:2])])
        assert torch.equal(torch.cat(await first), rows + 10)
        assert torch.equal(torch.cat(await second), rows)
        assert [len(vectors) for vectors in await first] == [1, 1, 1]
        # Also what nobody waits for: the engine computed it.
        assert exchange.num_answered == 7
        assert (exchange.num_waiting, core.aborted) == (0, [])

    run(scenario)


def test_a_prompt_alone_has_the_messages_own_id() -> None:
    async def scenario(core: Core, exchange: Exchange) -> None:
        rendered: Any = "a page"
        task = asyncio.create_task(exchange.one(rendered, params()))
        await asyncio.sleep(0)
        vectors = torch.ones(7, 2)
        core.outputs.put_nowait([output(core.requests[0].request_id, vectors)])
        assert await task is vectors

    run(scenario)


def test_a_call_that_is_given_up_takes_back_what_has_not_come() -> None:
    async def scenario(core: Core, exchange: Exchange) -> None:
        task = await asked(core, exchange)
        parcel_id = core.requests[0].request_id
        core.outputs.put_nowait([output(member(parcel_id, 1), torch.ones(1, 2))])
        while exchange.num_waiting == 3:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert core.aborted == [member(parcel_id, 0), member(parcel_id, 2)]
        # What comes all the same is nobody's, and others are answered.
        core.outputs.put_nowait([output(members(parcel_id, 0, 2), torch.ones(3, 2))])
        other = await asked(core, exchange)
        core.outputs.put_nowait(
            [output(members(core.requests[1].request_id, 0, 2), torch.zeros(3, 2))]
        )
        assert not torch.cat(await other).any()

    run(scenario)


@pytest.mark.parametrize("of_parcel", [True, False])
def test_what_vllm_gives_up_fails_and_the_rest_is_taken_back(of_parcel: bool) -> None:
    async def scenario(core: Core, exchange: Exchange) -> None:
        from vllm.v1.engine.exceptions import EngineGenerateError

        task = await asked(core, exchange)
        parcel_id = core.requests[0].request_id
        core.outputs.put_nowait([output(parcel_id if of_parcel else member(parcel_id, 0), None)])
        with pytest.raises(EngineGenerateError, match="gave a prompt up"):
            await task
        assert core.aborted == [member(parcel_id, place) for place in range(3)]
        exchange.check()

    run(scenario)


@pytest.mark.parametrize("is_death", [True, False])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_once_nothing_is_received_whoever_waits_or_comes_is_told(is_death: bool) -> None:
    async def scenario(core: Core, exchange: Exchange) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        task = await asked(core, exchange)
        core.outputs.put_nowait(EngineDeadError() if is_death else KeyError("a bug"))
        with pytest.raises(EngineDeadError) as told:
            await task
        assert isinstance(told.value.__cause__, KeyError) == (not is_death)
        again = []
        for _ in range(3):
            with pytest.raises(EngineDeadError) as later:
                await exchange.texts(TEXTS, WANT)
            again.append(later.value)
            assert isinstance(later.value.__cause__, KeyError) == (not is_death)
        # Each caller's own: one for all would keep every call's frames, and what they hold.
        assert len({id(error) for error in [told.value, *again]}) == 4
        with pytest.raises(EngineDeadError):
            exchange.check()
        assert (len(core.requests), core.aborted) == (1, [])

    run(scenario)


def test_closing_tells_whoever_waits_or_comes() -> None:
    async def scenario(core: Core, exchange: Exchange) -> None:
        task = await asked(core, exchange)
        exchange.close()
        exchange.close()
        with pytest.raises(EngineStoppedError):
            await task
        with pytest.raises(EngineStoppedError):
            await exchange.texts(TEXTS, WANT)

    run(scenario)


async def at_once(
    core: Core, exchange: Exchange, *calls: tuple[list[list[int]], Want], messages: int = 1
) -> "list[asyncio.Task[list[torch.Tensor]]]":
    before = len(core.requests)
    tasks = [asyncio.create_task(exchange.texts(texts, want)) for texts, want in calls]
    while len(core.requests) < before + messages:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(core.requests) == before + messages
    return tasks


def test_calls_of_one_moment_share_a_message_and_none_waits_for_another() -> None:
    async def scenario(core: Core, exchange: Exchange) -> None:
        first, second, third = await at_once(
            core, exchange, (TEXTS, WANT), ([[11]], WANT), ([[12, 13], [14]], WANT)
        )
        (request,) = core.requests
        assert request.prompt_token_ids == [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
        assert request.pooling_params.extra_kwargs == {"lengths": [2, 1, 3, 1, 2, 1]}
        rows = torch.arange(12.0).view(6, 2)
        # Across the border of two calls, and the second one's alone.
        core.outputs.put_nowait([output(members(request.request_id, 2, 3), rows[2:4])])
        assert torch.equal(torch.cat(await second), rows[3:4])
        assert exchange.num_waiting == 4
        core.outputs.put_nowait([output(members(request.request_id, 4, 5), rows[4:])])
        assert torch.equal(torch.cat(await third), rows[4:])
        core.outputs.put_nowait([output(members(request.request_id, 0, 1), rows[:2])])
        assert torch.equal(torch.cat(await first), rows[:3])
        assert (exchange.num_waiting, exchange.num_answered, core.aborted) == (0, 6, [])

    run(scenario)


def test_who_leaves_takes_back_its_own_texts_and_nobody_elses() -> None:
    async def scenario(core: Core, exchange: Exchange) -> None:
        first, second = await at_once(core, exchange, ([[1], [2]], WANT), ([[3], [4]], WANT))
        parcel_id = core.requests[0].request_id
        core.outputs.put_nowait([output(members(parcel_id, 1, 2), torch.ones(2, 2))])
        while exchange.num_waiting == 4:
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert core.aborted == [member(parcel_id, 3)]
        core.outputs.put_nowait([output(member(parcel_id, 0), torch.zeros(1, 2))])
        assert torch.cat(await first).tolist() == [[0, 0], [1, 1]]
        assert exchange.num_waiting == 0

    run(scenario)


def test_who_leaves_before_anything_is_sent_is_not_sent() -> None:
    async def scenario(core: Core, exchange: Exchange) -> None:
        leaving = asyncio.create_task(exchange.texts(TEXTS, WANT))
        await asyncio.sleep(0)
        leaving.cancel()
        (staying,) = await at_once(core, exchange, ([[3]], WANT))
        assert (core.requests[0].prompt_token_ids, core.aborted) == ([3], [])
        core.outputs.put_nowait([output(member(core.requests[0].request_id, 0), torch.ones(1, 2))])
        assert len(await staying) == 1

    run(scenario)


def test_texts_that_are_wanted_otherwise_or_are_too_many_have_another_message() -> None:
    async def scenario(core: Core, exchange: Exchange) -> None:
        many = [[1]] * (PARCEL_TEXTS - 1)
        await at_once(core, exchange, (many, WANT), ([[2]], Want(multi=True)), messages=2)
        await at_once(core, exchange, (many, WANT), ([[2], [3]], WANT), messages=2)
        # Long ones, which take long to be read, leave short ones alone.
        await at_once(core, exchange, ([[1] * 9000], WANT), ([[2]], WANT), messages=2)
        sizes = [len(request.prompt_token_ids) for request in core.requests]
        assert sizes == [PARCEL_TEXTS - 1, 1, PARCEL_TEXTS - 1, 2, 9000, 1]
        exchange.close()

    run(scenario)


def test_a_shared_message_that_is_refused_is_tried_call_by_call() -> None:
    async def scenario(core: Core, exchange: Exchange) -> None:
        from vllm.v1.engine.exceptions import EngineGenerateError

        good, bad = await at_once(core, exchange, ([[1], [2]], WANT), ([[3]], WANT))
        core.outputs.put_nowait([output(core.requests[0].request_id, None)])
        while len(core.requests) < 3:
            await asyncio.sleep(0)
        assert [request.prompt_token_ids for request in core.requests[1:]] == [[1, 2], [3]]
        first, second = (request.request_id for request in core.requests[1:])
        core.outputs.put_nowait(
            [output(second, None), output(members(first, 0, 1), torch.ones(2, 2))]
        )
        assert len(await good) == 2
        with pytest.raises(EngineGenerateError, match="gave a prompt up"):
            await bad
        assert exchange.num_waiting == 0

    run(scenario)


def test_a_message_that_cannot_be_sent_fails_for_each_of_its_calls() -> None:
    async def scenario(core: Core, exchange: Exchange) -> None:
        async def refuse(request: Any) -> None:
            core.requests.append(request)
            raise ValueError("not sent")

        core.add_request_async = refuse  # type: ignore[method-assign]
        tasks = await at_once(core, exchange, ([[1]], WANT), ([[2]], WANT))
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert [(type(error), str(error)) for error in told] == [(ValueError, "not sent")] * 2
        assert told[0] is not told[1]
        assert exchange.num_waiting == 0

    run(scenario)
