"""Requests to vLLM's engine core, and what comes back, without vLLM's own front end between.

`AsyncLLM` makes a stream, a message and a dozen objects of bookkeeping for every prompt, for tokens that
come one after the other and text that is put together from them. An embedding has neither: it comes once
and whole. For short texts that was two thirds of this process's time. What is used here is the
client that `AsyncLLM` itself talks to the core with; starting, stopping and rendering stay vLLM's.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from serving.engine.worker.parcel import member, places
from serving.errors import EngineStoppedError

if TYPE_CHECKING:
    from vllm import PoolingParams
    from vllm.inputs import EngineInput
    from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest
    from vllm.v1.engine.async_llm import AsyncLLM


@dataclass(slots=True, eq=False)
class _Order:
    """What one message asked for.

    Attributes:
        outputs: of each prompt in it, None until it comes.
        is_parcel: its prompts have ids of their own.
        num_missing: how many of them have not come.
        done: resolved with the last one, or with what went wrong.
    """

    outputs: list[Tensor | None]
    is_parcel: bool
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
        self._ended: Callable[[], Exception] | None = None
        self._numbers = itertools.count()
        self._waiting: dict[str, _Order] = {}
        self._listening: asyncio.Task[None] | None = None
        self.num_answered = 0
        """Prompts that something came for, whatever it was."""

    @property
    def num_waiting(self) -> int:
        """Prompts that were sent and not answered."""
        return sum(order.num_missing for order in self._waiting.values())

    def check(self) -> None:
        """Raise what every call would, now.

        Raises:
            Exception: `EngineStoppedError`, or vLLM's for a dead engine.
        """
        if self._ended is not None:
            # A new one each time: one for all would keep the frames of every call, and what they hold.
            raise self._ended()

    async def one(self, rendered: "EngineInput", params: "PoolingParams") -> Tensor:
        """Have any prompt embedded.

        Raises:
            EngineStoppedError: closed meanwhile.
            Exception: one of `serving.engine.foreign.foreign_errors`.
        """
        # What the model gives was checked before (`Pooling.check`).
        request = self._process_inputs(
            self._next_id(), rendered, params, supported_tasks=(params.task,)
        )
        (output,) = await self._answers(request, 1, is_parcel=False)
        return output

    async def texts(self, texts: Sequence[Sequence[int]], params: "PoolingParams") -> list[Tensor]:
        """Have the texts of a parcel embedded by a `ParcelScheduler`.

        Args:
            texts: token ids, each of the model's vocabulary, as many as `params` says.
            params: a parcel's.

        Raises:
            EngineStoppedError: closed meanwhile.
            Exception: one of `serving.engine.foreign.foreign_errors`.
        """
        request = self._request(
            request_id=self._next_id(),
            prompt_token_ids=list(itertools.chain.from_iterable(texts)),
            mm_features=None,
            sampling_params=None,
            pooling_params=params,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        return await self._answers(request, len(texts), is_parcel=True)

    def close(self) -> None:
        """Receive no more; whoever waits, or comes later, is told."""
        self._end(lambda: EngineStoppedError("The engine is closed. Load the checkpoint again."))
        if self._listening is not None:
            self._listening.cancel()

    def _next_id(self) -> str:
        return f"polyvec-{next(self._numbers)}"

    async def _answers(
        self, request: "EngineCoreRequest", number: int, *, is_parcel: bool
    ) -> list[Tensor]:
        self.check()
        done = asyncio.get_running_loop().create_future()
        order = _Order([None] * number, is_parcel, number, done)
        message_id = request.request_id
        self._waiting[message_id] = order
        try:
            await self._core.add_request_async(request)
            self._listen()
            await order.done
        finally:
            del self._waiting[message_id]
            if order.num_missing and self._ended is None:
                await self._core.abort_requests_async(_unanswered(message_id, order))
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
            self._end(self._dead_error)
        finally:
            # Whatever else ended this, nothing will answer those who wait.
            cause = sys.exception()

            def dead() -> Exception:
                error: Exception = self._dead_error()
                error.__cause__ = cause
                return error

            self._end(dead)

    def _take(self, output: "EngineCoreOutput") -> None:
        message_id, found = places(output.request_id)
        self.num_answered += 1 if found is None else len(found)
        order = self._waiting.get(message_id)
        if order is None or order.done.done():
            return  # its caller has left
        if output.pooling_output is None:
            # Also under a parcel's own id: what goes wrong before there are requests of its texts.
            order.done.set_exception(
                self._failed_error(f"vLLM gave a prompt up: {output.finish_reason}.")
            )
            return
        if found is None or len(found) == 1:
            order.outputs[found.start if found else 0] = output.pooling_output
            order.num_missing -= 1
        else:
            order.outputs[found.start : found.stop] = output.pooling_output.split(1)
            order.num_missing -= len(found)
        if not order.num_missing:
            order.done.set_result(None)

    def _end(self, error: Callable[[], Exception]) -> None:
        """Answer nothing any more; the first reason counts."""
        if self._ended is not None:
            return
        self._ended = error
        for order in self._waiting.values():
            if not order.done.done():
                order.done.set_exception(error())


def _unanswered(message_id: str, order: _Order) -> list[str]:
    """Ids of the prompts that the core still has."""
    if not order.is_parcel:
        return [message_id]
    return [
        member(message_id, place) for place, output in enumerate(order.outputs) if output is None
    ]
