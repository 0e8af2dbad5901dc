"""What the routes that compute share: who lets requests in, what opens their inputs, who runs them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from serving.engine.protocol import Outcome
from serving.errors import QueueFullError
from serving.http.answer import Answer
from serving.http.body import Bodies
from serving.http.catalogue import Catalogue
from serving.http.errors import invalid
from serving.http.guard import Admitted, Guard
from serving.http.sources import Source, Sources, counts_of
from serving.http.stages import Stage
from serving.http.visit import Visit
from serving.http.wire.items import Item
from serving.http.wire.limits import BodyLimits
from serving.pipeline import Prepared
from serving.service import Lane
from serving.settings import ServerSettings
from serving.turns import Flow

Call = TypeVar("Call")

# A millisecond or two of JSON.
_QUICK_BODY_BYTES = 1024 * 1024

# How much slower than the engine can be it may have looked, as while it warmed up.
_SLOW_FACTOR = 2
_SLOW_RETRY_S = 60.0

# With `truncate` more may come than are kept.
_IDS_PER_TOKEN = 4


class Desk:
    """The parts of one server that every computing route uses."""

    def __init__(
        self,
        settings: ServerSettings,
        catalogue: Catalogue,
        guard: Guard,
        sources: Sources,
        bodies: Bodies,
    ) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self.guard = guard
        self.sources = sources
        self.bodies = bodies
        self._body_limits = BodyLimits(
            max_inputs=settings.max_inputs,
            max_image_bytes=settings.max_image_bytes,
            max_pdf_bytes=settings.max_pdf_bytes,
            max_text_chars=settings.max_text_chars,
            max_token_ids=_IDS_PER_TOKEN * settings.max_text_tokens,
            max_request_chars=settings.max_request_chars,
        )

    async def parsed(self, admitted: Admitted, parse: Callable[[bytes, BodyLimits], Call]) -> Call:
        """The call behind the body; other requests have their turn while a large one is read.

        Raises:
            HttpError: 422; names what is wrong.
        """
        if len(admitted.body) <= _QUICK_BODY_BYTES:
            return parse(admitted.body, self._body_limits)
        return await asyncio.to_thread(parse, admitted.body, self._body_limits)

    async def open(self, admitted: Admitted, lane: Lane, items: Sequence[Item]) -> list[Source]:
        """The inputs behind `items`; see `Sources.open`."""
        return await self.sources.open(
            items,
            lane.prompter,
            admitted.visit.stages,
            admitted.share,
            admitted.flow,
            max_chars=self.settings.max_request_chars,
        )

    def max_length(self, lane: Lane) -> int:
        """Tokens that a text of `lane` may have."""
        return min(self.settings.max_text_tokens, lane.engine.max_tokens)

    def note(self, visit: Visit, task: str, items: Sequence[Item]) -> None:
        """Remember what was asked for, also when it fails."""
        visit.task = task
        visit.inputs = counts_of(items)

    async def run(
        self, admitted: Admitted, lane: Lane, prepared: Prepared, *, field: str = "input"
    ) -> list[Outcome]:
        """Charge for `prepared`, and embed it when its turns come; `field` has most of the inputs.

        Raises:
            HttpError: the caller's tokens are used up, or it asks for too many multi-vectors.
            QueueFullError: too much waits already, or this is more than the engine does in a request's time.
            EngineError: the engine cannot answer.
        """
        num_tokens = prepared.total_tokens
        bound = self.settings.max_multivector_tokens
        if prepared.request.want.multi and num_tokens > bound:
            raise invalid(
                field,
                f"Multi-vectors of {num_tokens} tokens were asked for; one request gets at most "
                f"{bound}, as each token is a vector. Send fewer inputs at once.",
                "too_many_tokens",
            )
        self._check_time(lane, num_tokens)
        await admitted.charge.tokens(num_tokens)
        stages = admitted.visit.stages
        flow = Flow(
            admitted.flow.caller,
            admitted.flow.call,
            waiting=stages.measure(Stage.QUEUE),
            running=stages.measure(Stage.ENGINE),
        )
        return await lane.pipeline.run(prepared, flow)

    def _check_time(self, lane: Lane, num_tokens: int) -> None:
        """Refuse what would take its whole time of the engine, and be answered 504 in the end.

        Speed is known from the past, so this is no fault of the request's, and may pass.
        """
        if num_tokens <= lane.running_tokens:
            return
        seconds = lane.turns.admission.speed.seconds_for(num_tokens)
        timeout_s = self.settings.request_timeout_s
        if seconds is not None and seconds > _SLOW_FACTOR * timeout_s:
            raise QueueFullError(
                f"{num_tokens} tokens take some {seconds:.0f} s at the speed seen lately; a request has "
                f"{timeout_s:g} s. Send fewer inputs at once, or try again later.",
                retry_after_s=_SLOW_RETRY_S,
            )

    def reply(self, admitted: Admitted, body: bytes, media_type: str) -> Answer:
        """An answer that says what is left of the caller's limits."""
        return Answer(
            body,
            media_type=media_type,
            headers={"Vary": "Accept", **admitted.charge.headers()},
            bodies=self.bodies,
            visit=admitted.visit,
            timeout_s=self.settings.request_timeout_s,
        )
