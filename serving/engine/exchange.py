"""Requests to vLLM's engine core, and what comes back, without vLLM's own front end between.

`AsyncLLM` makes a stream, a message and a dozen objects of bookkeeping for every prompt, for tokens that
come one after the other and text that is put together from them. An embedding has neither: it comes once
and whole. For short texts that was two thirds of this process's time. What is used here is the
client that `AsyncLLM` itself talks to the core with; starting, stopping and rendering stay vLLM's.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from serving.engine.worker.parcel import member
from serving.errors import EngineStoppedError

if TYPE_CHECKING:
    from vllm import PoolingParams
    from vllm.inputs import EngineInput
    from vllm.tasks import SupportedTask
    from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest
    from vllm.v1.engine.async_llm import AsyncLLM


@dataclass(slots=True, eq=False)
class _Order:
    """What one message asked for.

    Attributes:
        outputs: of each prompt in it, None until it comes.
        num_missing: how many of them have not come.
        done: resolved with the last one, or with what went wrong.
    """

    outputs: list[Tensor | None]
    num_missing: int
    done: asyncio.Future[None]


class Exchange:
    """Asks one engine core, from one event loop.

    Args:
        llm: started, and asked nothing by anybody else: what it receives is taken here.
    """

    def __init__(self, llm: "AsyncLLM") -> None:
        from vllm.v1.engine import EngineCoreRequest
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        self._request = EngineCoreRequest
        self._dead_error = EngineDeadError
        self._failed_error = EngineGenerateError
        self._core = llm.engine_core
        self._process_inputs = llm.input_processor.process_inputs
        self._tasks: tuple[SupportedTask, ...] | None = None
        self._numbers = itertools.count()
        # By the id under which an output comes: its order, and its place there; None stands for all places.
        self._waiting: dict[str, tuple[_Order, int | None]] = {}
        self._listening: asyncio.Task[None] | None = None

    @property
    def num_waiting(self) -> int:
        """Prompts that were sent and not answered."""
        return sum(place is not None for _, place in self._waiting.values())

    @property
    def is_broken(self) -> bool:
        """Whether nothing will be received any more."""
        return self._listening is not None and self._listening.done()

    async def one(self, rendered: "EngineInput", params: "PoolingParams") -> Tensor:
        """Have any prompt embedded.

        Raises:
            Exception: one of `serving.engine.foreign.foreign_errors`.
        """
        if self._tasks is None:
            self._tasks = await self._core.get_supported_tasks_async()
        request = self._process_inputs(
            self._next_id(), rendered, params, supported_tasks=self._tasks
        )
        (output,) = await self._answers(request, [request.request_id])
        return output

    async def texts(self, texts: Sequence[Sequence[int]], params: "PoolingParams") -> list[Tensor]:
        """Have the texts of a parcel embedded by a `ParcelScheduler`.

        Args:
            texts: token ids, each of the model's vocabulary, as many as `params` says.
            params: a parcel's.

        Raises:
            Exception: one of `serving.engine.foreign.foreign_errors`.
        """
        parcel_id = self._next_id()
        request = self._request(
            request_id=parcel_id,
            prompt_token_ids=list(itertools.chain.from_iterable(texts)),
            mm_features=None,
            sampling_params=None,
            pooling_params=params,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        return await self._answers(
            request, [member(parcel_id, index) for index in range(len(texts))]
        )

    def close(self) -> None:
        """Receive no more; whoever waits is told."""
        if self._listening is not None:
            self._listening.cancel()
        self._fail_all(EngineStoppedError("The engine is closed. Load the checkpoint again."))

    def _next_id(self) -> str:
        return f"polyvec-{next(self._numbers)}"

    async def _answers(self, request: "EngineCoreRequest", ids: Sequence[str]) -> list[Tensor]:
        order = _Order([None] * len(ids), len(ids), asyncio.get_running_loop().create_future())
        # What goes wrong before vLLM has made prompts of a message comes under the message's own id.
        self._waiting[request.request_id] = (order, None)
        self._waiting.update((one, (order, place)) for place, one in enumerate(ids))
        try:
            await self._core.add_request_async(request)
            self._listen()
            await order.done
        finally:
            unanswered = [one for one in ids if self._waiting.pop(one, None) is not None]
            self._waiting.pop(request.request_id, None)
            if unanswered:
                await self._core.abort_requests_async(unanswered)
        return [output for output in order.outputs if output is not None]

    def _listen(self) -> None:
        if self._listening is None:
            self._listening = asyncio.create_task(self._receive(), name="polyvec-exchange")

    async def _receive(self) -> None:
        try:
            while True:
                for output in (await self._core.get_output_async()).outputs:
                    self._take(output)
        except self._dead_error:
            pass  # said below
        finally:
            # Whatever ended this, nothing else will answer those who wait.
            self._fail_all(self._dead_error())

    def _take(self, output: "EngineCoreOutput") -> None:
        order, place = self._waiting.pop(output.request_id, (None, None))
        if order is None or order.done.done():
            return  # its caller has left
        if place is None or output.pooling_output is None:
            order.done.set_exception(
                self._failed_error(f"vLLM gave a prompt up: {output.finish_reason}.")
            )
            return
        order.outputs[place] = output.pooling_output
        order.num_missing -= 1
        if not order.num_missing:
            order.done.set_result(None)

    def _fail_all(self, error: Exception) -> None:
        for order, _ in self._waiting.values():
            if not order.done.done():
                order.done.set_exception(error)
