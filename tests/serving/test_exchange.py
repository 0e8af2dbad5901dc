"""Asking an engine core, with a small one in its place: what comes back, in any order or not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from serving import EngineStoppedError
from serving.engine.exchange import Exchange
from serving.engine.worker.parcel import member, members

pytestmark = pytest.mark.engine

TEXTS = [[5, 6], [7], [8, 9, 10]]


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
            await scenario(core, Exchange(llm))

    asyncio.run(main())


def params() -> Any:
    from vllm import PoolingParams

    return PoolingParams(task="embed")


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
    task = asyncio.create_task(exchange.texts(TEXTS, params()))
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
                await exchange.texts(TEXTS, params())
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
            await exchange.texts(TEXTS, params())

    run(scenario)
