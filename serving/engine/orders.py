"""What calls want of an engine core, and the messages that carry it: which output is whose.

Knows ids and places of prompts; not how messages are sent.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from serving.engine.protocol import Want
from serving.engine.worker.parcel import member

PARCEL_TEXTS = 64
"""Texts of one message: enough that its cost is spread thin, few enough that the scheduler soon has the first of many."""

_SHARED_TOKENS = 8192
"""Of calls that share a message; it is milliseconds of work for whoever reads it."""


@dataclass(slots=True, eq=False)
class Order:
    """What one call asked for.

    Attributes:
        done: resolved with the last output, or with what went wrong.
        outputs: of each prompt, None until it comes.
        num_missing: how many have not come.
        texts: token ids of each prompt; none where the prompt is of another kind.
        start: place of the first prompt in the message.
        message: what it was sent in; None before.
    """

    done: asyncio.Future[None]
    outputs: list[Tensor | None]
    num_missing: int
    texts: Sequence[Sequence[int]] = ()
    start: int = 0
    message: "Message | None" = None

    def take(self, first: int, rows: Sequence[Tensor]) -> None:
        """Take those of `rows`, outputs of the message from place `first` on, that are this order's."""
        begin = max(first, self.start)
        end = min(first + len(rows), self.start + len(self.outputs))
        if begin >= end or self.done.done():
            return
        self.outputs[begin - self.start : end - self.start] = rows[begin - first : end - first]
        self.num_missing -= end - begin
        if not self.num_missing:
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """Give up what has not come, unless it was given up before."""
        if not self.done.done():
            self.done.set_exception(error)

    @property
    def unanswered(self) -> list[str]:
        """Ids of the prompts that the core still has."""
        if self.message is None:
            return []
        if not self.texts:
            return [self.message.id]
        missing = (place for place, output in enumerate(self.outputs) if output is None)
        return [member(self.message.id, self.start + place) for place in missing]

    def has(self, place: int) -> bool:
        """Whether the prompt at `place` of the message is one of these."""
        return self.start <= place < self.start + len(self.outputs)

    def take_back(self) -> None:
        """Be as before it was sent."""
        self.message = None
        self.outputs = [None] * len(self.outputs)
        self.num_missing = len(self.outputs)


@dataclass(slots=True, eq=False)
class Message:
    """What was sent, or will be in the loop's next turn.

    Attributes:
        id: that its outputs name.
        want: how its texts are wanted; None where it is no parcel.
        orders: those in it that somebody waits for, in the order of their places.
        num_texts: of all orders.
        num_tokens: of these.
    """

    id: str
    want: Want | None
    orders: list[Order] = field(default_factory=list)
    num_texts: int = 0
    num_tokens: int = 0

    def add(self, order: Order, num_tokens: int) -> None:
        """Have `order` sent with it."""
        self.orders.append(order)
        self.num_texts += len(order.texts)
        self.num_tokens += num_tokens

    def has_room(self, order: Order, num_tokens: int) -> bool:
        """Whether `order` may share it."""
        return (
            self.num_texts + len(order.texts) <= PARCEL_TEXTS
            and self.num_tokens + num_tokens <= _SHARED_TOKENS
        )
