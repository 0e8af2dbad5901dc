"""Requests to vLLM's engine core, and what comes back, without vLLM's own front end between.

`AsyncLLM` makes a stream, a message and a dozen objects of bookkeeping for every prompt, for tokens that
come one after the other and text that is put together from them. An embedding has neither: it comes once
and whole. For short texts that was two thirds of this process's time. What is used here is the
client that `AsyncLLM` itself talks to the core with; starting, stopping and rendering stay vLLM's.

Texts of calls that come at the same moment, as when many searches do, share a message: it costs both processes more
than a short text does. Nothing waits for others to come.
"""

import asyncio
import copy
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from serving.engine.orders import Message, Order
from serving.engine.protocol import Want
from serving.engine.worker.parcel import places
from serving.errors import EngineStoppedError

if TYPE_CHECKING:
    from vllm import PoolingParams
    from vllm.inputs import EngineInput
    from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest
    from vllm.v1.engine.async_llm import AsyncLLM


class Exchange:
    """Asks one engine core, from one event loop.

    Args:
        llm: started, and asked nothing by anybody else: what it receives is taken here.
        parcel_params: what to ask for texts of so many tokens that are wanted so; see `Pooling.parcel_params`.
    """

    def __init__(
        self,
        llm: "AsyncLLM",
        parcel_params: "Callable[[Sequence[int], Want], PoolingParams]",
    ) -> None:
        from vllm.v1.engine import EngineCoreRequest
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        self._request = EngineCoreRequest
        self._dead_error = EngineDeadError
        self._failed_error = EngineGenerateError
        self._core = llm.engine_core
        self._process_inputs = llm.input_processor.process_inputs
        self._parcel_params = parcel_params
        self._ended: Callable[[], Exception] | None = None
        self._numbers = itertools.count()
        self._orders: set[Order] = set()
        self._sent: dict[str, Message] = {}
        # By how their texts are wanted: those that the loop's next turn sends.
        self._open: dict[Want, Message] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Task[None] | None = None
        self.num_answered = 0
        """Prompts that something came for, whatever it was."""

    @property
    def num_waiting(self) -> int:
        """Prompts that were asked for and not answered."""
        return sum(order.num_missing for order in self._orders)

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
        self.check()
        # What the model gives was checked before (`Pooling.check`).
        request = self._process_inputs(
            self._next_id(), rendered, params, supported_tasks=(params.task,)
        )
        order = self._order(1)
        try:
            await self._send(request, Message(request.request_id, None, [order]))
            await order.done
        finally:
            await self._forget(order)
        (output,) = order.outputs
        assert output is not None
        return output

    async def texts(self, texts: Sequence[Sequence[int]], want: Want) -> list[Tensor]:
        """Have at most `PARCEL_TEXTS` whole texts embedded by a `ParcelScheduler`.

        Args:
            texts: token ids, each of the model's vocabulary.
            want: of each.

        Raises:
            EngineStoppedError: closed meanwhile.
            Exception: one of `serving.engine.foreign.foreign_errors`.
        """
        self.check()
        order = self._order(len(texts), texts)
        self._share(order, want)
        try:
            await order.done
        finally:
            await self._forget(order)
        return [output for output in order.outputs if output is not None]

    def close(self) -> None:
        """Receive no more; whoever waits, or comes later, is told."""
        self._end(lambda: EngineStoppedError("The engine is closed. Load the checkpoint again."))
        if self._listening is not None:
            self._listening.cancel()

    def _next_id(self) -> str:
        return f"polyvec-{next(self._numbers)}"

    def _order(self, number: int, texts: Sequence[Sequence[int]] = ()) -> Order:
        done = asyncio.get_running_loop().create_future()
        order = Order(done, [None] * number, number, texts)
        self._orders.add(order)
        return order

    async def _forget(self, order: Order) -> None:
        """Nobody waits for `order` any more; the core need not compute the rest of it."""
        self._orders.discard(order)
        message = order.message
        if message is None:
            return  # It was not sent, and will not be.
        message.orders.remove(order)
        if not message.orders:
            del self._sent[message.id]
        if order.num_missing and self._ended is None:
            await self._core.abort_requests_async(order.unanswered)

    def _share(self, order: Order, want: Want) -> None:
        """Have `order` sent in the loop's next turn, with those that come until then and want the same."""
        num_tokens = sum(map(len, order.texts))
        message = self._open.get(want)
        if message is None or not message.has_room(order, num_tokens):
            message = self._open[want] = Message(self._next_id(), want)
            self._start(message)
        message.add(order, num_tokens)

    def _start(self, message: Message) -> None:
        sending = asyncio.create_task(self._send_parcel(message))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _send_parcel(self, message: Message) -> None:
        assert message.want is not None
        if self._open.get(message.want) is message:
            del self._open[message.want]
        # Some may have left, or been told that nothing is sent any more.
        message.orders = [order for order in message.orders if not order.done.done()]
        if not message.orders:
            return
        try:
            await self._send(self._parcel(message), message)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to whoever waits
            for order in message.orders:
                order.fail(copy.copy(error))

    def _parcel(self, message: Message) -> "EngineCoreRequest":
        """The request for all texts of `message`, one after the other."""
        assert message.want is not None
        texts: list[Sequence[int]] = []
        for order in message.orders:
            order.start = len(texts)
            texts += order.texts
        return self._request(
            request_id=message.id,
            prompt_token_ids=list(itertools.chain.from_iterable(texts)),
            mm_features=None,
            sampling_params=None,
            pooling_params=self._parcel_params(list(map(len, texts)), message.want),
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )

    async def _send(self, request: "EngineCoreRequest", message: Message) -> None:
        self._sent[message.id] = message
        for order in message.orders:
            order.message = message
        await self._core.add_request_async(request)
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
        message = self._sent.get(message_id)
        if message is None:
            return  # Its callers have left.
        if output.pooling_output is None:
            self._give_up(message, found, output)
            return
        if found is None or len(found) == 1:
            rows: Sequence[Tensor] = (output.pooling_output,)
        else:
            rows = output.pooling_output.split(1)
        for order in message.orders:
            order.take(0 if found is None else found.start, rows)

    def _give_up(self, message: Message, found: range | None, output: "EngineCoreOutput") -> None:
        """Tell whose text has no vectors; or, where the parcel itself was refused, try each order alone."""
        failed = [order for order in message.orders if found is None or order.has(found.start)]
        if found is None and len(failed) > 1:
            # Whosever fault it is, it need not be the others'.
            for order in failed:
                self._send_alone(order, message)
            return
        for order in failed:
            order.fail(self._failed_error(f"vLLM gave a prompt up: {output.finish_reason}."))

    def _send_alone(self, order: Order, message: Message) -> None:
        message.orders.remove(order)
        if not message.orders:
            del self._sent[message.id]
        order.take_back()
        alone = Message(self._next_id(), message.want)
        alone.add(order, 0)
        self._start(alone)

    def _end(self, error: Callable[[], Exception]) -> None:
        """Answer nothing any more; the first reason counts."""
        if self._ended is not None:
            return
        self._ended = error
        for order in self._orders:
            order.fail(error())
