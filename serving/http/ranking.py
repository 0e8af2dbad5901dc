"""`POST /v1/rerank` and `/v1/score`: multi-vectors of queries and documents, compared by MaxSim."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from starlette.requests import Request
from starlette.responses import Response
from torch import Tensor

from pooling import maxsim, maxsim_scores
from serving.engine.protocol import Outcome, Pooled, Want
from serving.errors import InputError
from serving.http.answer import JSON
from serving.http.desk import Desk
from serving.http.errors import HttpError, invalid_input
from serving.http.guard import Admitted
from serving.http.stages import Stage
from serving.http.usage import note_usage
from serving.http.wire.answer_parts import Usage
from serving.http.wire.calls import RerankCall, ScoreCall
from serving.http.wire.items import Item
from serving.http.wire.parse_pairs import parse_rerank, parse_score
from serving.http.wire.rankings import rerank_answer, score_answer
from serving.pipeline import Pipeline, Prepared, pooled_or_raise
from serving.pipeline import Request as PipelineRequest
from serving.service import Lane

_SIDED_PROMPTS = ("query", "passage")


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of inputs: its name, its items, whether it is a list, and the prefix of its texts."""

    name: str
    items: tuple[Item, ...]
    is_list: bool
    prompt_name: str | None

    def pooled(self, outcomes: Sequence[Outcome]) -> list[Pooled]:
        """All vectors of the field.

        Raises:
            HttpError: an input failed in the engine.
        """
        try:
            return pooled_or_raise(outcomes, name_index=True)
        except InputError as error:
            raise self.refusal(error) from error

    def refusal(self, error: InputError) -> HttpError:
        """The answer for one of the inputs that has no vectors."""
        return invalid_input(f"{self.name}.{error.index}" if self.is_list else self.name, error)


class RankingRoutes:
    """Answers `POST /v1/rerank` and `POST /v1/score`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def rerank(self, request: Request) -> Response:
        """Score every document against one query, best first.

        Raises:
            HttpError: what is wrong with the request, or with the server.
            PolyvecError: as the pipeline raises.
        """
        async with self._desk.guard.admit(request) as admitted:
            stages = admitted.visit.stages
            with stages.measure(Stage.PARSE):
                call = await self._desk.parsed(admitted, parse_rerank)
            (query,), documents, usage = await self._vectors(
                admitted, call, ("query", (call.query,), False), ("documents", call.documents, True)
            )
            with stages.measure(Stage.ENCODE):
                scores = await asyncio.to_thread(_scores, [query], documents, call.normalized)
                body = rerank_answer(call, call.model, scores, usage, admitted.visit.request_id)
            return self._desk.reply(admitted, body, JSON)

    async def score(self, request: Request) -> Response:
        """Score pairs, in order; one query may stand for all documents.

        Raises:
            HttpError: what is wrong with the request, or with the server.
            PolyvecError: as the pipeline raises.
        """
        async with self._desk.guard.admit(request) as admitted:
            stages = admitted.visit.stages
            with stages.measure(Stage.PARSE):
                call = await self._desk.parsed(admitted, parse_score)
            queries, documents, usage = await self._vectors(
                admitted,
                call,
                (call.names[0], call.queries, True),
                (call.names[1], call.documents, True),
            )
            with stages.measure(Stage.ENCODE):
                scores = await asyncio.to_thread(_scores, queries, documents, call.normalized)
                request_id, now_s = admitted.visit.request_id, int(time.time())
                body = score_answer(call.model, scores, usage, request_id, now_s)
            return self._desk.reply(admitted, body, JSON)

    async def _vectors(
        self,
        admitted: Admitted,
        call: RerankCall | ScoreCall,
        queries: tuple[str, tuple[Item, ...], bool],
        documents: tuple[str, tuple[Item, ...], bool],
    ) -> tuple[list[Tensor], list[Tensor], Usage]:
        """Multi-vectors of both fields, computed as one call."""
        lane = self._desk.catalogue.pair(call.model, call.task)
        self._desk.note(admitted.visit, lane.manifest.task, (*queries[1], *documents[1]))
        fields = [
            _Field(*given, prompt_name=_prompt_name(lane, side))
            for given, side in zip((queries, documents), _SIDED_PROMPTS, strict=True)
        ]
        parts = [
            await self._prepared(admitted, lane, field, truncate=call.truncate) for field in fields
        ]
        prepared = Prepared.joined(parts)
        border = len(parts[0].prompts)
        outcomes = await self._desk.run(admitted, lane, prepared, field=documents[0])
        pooled = [
            *fields[0].pooled(outcomes[:border]),
            *fields[1].pooled(outcomes[border:]),
        ]
        usage = note_usage(admitted.visit, prepared, pooled)
        vectors = [one.multi for one in pooled if one.multi is not None]
        assert len(vectors) == len(pooled)  # the request asked for these
        return vectors[:border], vectors[border:], usage

    async def _prepared(
        self, admitted: Admitted, lane: Lane, field: _Field, *, truncate: bool
    ) -> Prepared:
        request = PipelineRequest(
            want=Want(multi=True),
            prompt_name=field.prompt_name,
            max_length=self._desk.max_length(lane),
            too_long="cut" if truncate else "refuse",
        )
        try:
            sources = await self._desk.open(admitted, lane, field.items)
            room = lane.turns.admission.expected(admitted.visit.flow_name)
            with admitted.visit.stages.measure(Stage.PREPARE), room:
                pipeline: Pipeline = lane.pipeline
                inputs = [source.input for source in sources]
                prepared = await pipeline.prepare(inputs, request, admitted.flow)
            prepared.raise_first()
        except InputError as error:
            raise field.refusal(error) from error
        return prepared


def _prompt_name(lane: Lane, side: str) -> str | None:
    """The prefix of one side; both sides of text matching have the same."""
    manifest = lane.manifest
    return side if manifest.task != "text-matching" and side in manifest.prompts else None


def _scores(queries: Sequence[Tensor], documents: Sequence[Tensor], normalized: bool) -> Tensor:
    """MaxSim of one query with each document, or of each query with its own; [document]."""
    if len(queries) == 1:
        scores = maxsim_scores(queries, documents)[0]
    else:
        scores = torch.stack([maxsim(q, d) for q, d in zip(queries, documents, strict=True)])
    if not normalized:
        return scores
    return scores / torch.tensor([query.shape[0] for query in queries])
