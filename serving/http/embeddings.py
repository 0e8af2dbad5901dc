"""`POST /v1/embeddings`: a body becomes a call, its items inputs, inputs vectors, vectors an answer.

The order of things, and what is checked when; each step is done elsewhere.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from serving.engine.protocol import ImagePrompt, Pooled, Want
from serving.errors import InputError
from serving.http.answer import JSON, joined
from serving.http.catalogue import Choice
from serving.http.desk import Desk
from serving.http.errors import invalid
from serving.http.guard import Admitted
from serving.http.sources import Source, counts_of
from serving.http.stages import Stage
from serving.http.usage import note_usage
from serving.http.wire.answer import answer_chunks
from serving.http.wire.answer_parts import Embedded, Patches
from serving.http.wire.calls import EmbeddingsCall
from serving.http.wire.negotiate import OCTETS_TYPE, Json, Octets, negotiate
from serving.http.wire.octets import check_octets, octets
from serving.http.wire.parse_embeddings import parse_embeddings
from serving.inputs import Text
from serving.pipeline import Prepared, pooled_or_raise
from serving.pipeline import Request as PipelineRequest


class EmbeddingsRoute:
    """Answers `POST /v1/embeddings`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def answer(self, request: Request) -> Response:
        """One request.

        Raises:
            HttpError: what is wrong with it, or with the server.
            PolyvecError: as the pipeline raises.
        """
        async with self._desk.guard.admit(request) as admitted:
            stages = admitted.visit.stages
            with stages.measure(Stage.PARSE):
                output = negotiate(request.headers.get("accept"))
                call = await self._desk.parsed(admitted, parse_embeddings)
                if isinstance(output, Octets):
                    check_octets(call)
                choice = self._desk.catalogue.choose(call.model, call.task)
                self._desk.note(admitted.visit, choice.task, call.items)
                _check_dimensions(call, choice)
            sources = await self._desk.open(admitted, choice.lane, call.items)
            if admitted.visit.inputs.page:
                admitted.visit.inputs = counts_of(call.items, sources)
            room = choice.lane.turns.admission.expected(admitted.flow.caller)
            with stages.measure(Stage.PREPARE), room:
                prepared = await self._prepared(admitted, call, choice, sources)
            pooled = pooled_or_raise(
                await self._desk.run(admitted, choice.lane, prepared), name_index=True
            )
            usage = note_usage(admitted.visit, prepared, pooled)
            with stages.measure(Stage.ENCODE):
                embedded = await _embedded(call, choice, sources, prepared, pooled)
                match output:
                    case Json():
                        body = await joined(answer_chunks(call, call.model, embedded, usage))
                        media_type = JSON
                    case Octets():
                        body = await asyncio.to_thread(
                            octets, call, call.model, embedded, usage, output.vector_format
                        )
                        media_type = OCTETS_TYPE
            return self._desk.reply(admitted, body, media_type)

    async def _prepared(
        self, admitted: Admitted, call: EmbeddingsCall, choice: Choice, sources: Sequence[Source]
    ) -> Prepared:
        request = PipelineRequest(
            want=Want(
                single=not call.multi,
                multi=call.multi,
                normalized=call.normalized,
                dim=call.dimensions,
            ),
            prompt_name=choice.prompt_name,
            max_length=self._desk.max_length(choice.lane),
            too_long="cut" if call.truncate else "refuse",
        )
        pipeline = choice.lane.pipeline
        inputs = [source.input for source in sources]
        if call.late_chunking:
            chunks = [item for item in inputs if isinstance(item, Text)]
            prepared = await pipeline.prepare_chunks(chunks, request, admitted.flow)
        else:
            prepared = await pipeline.prepare(inputs, request, admitted.flow)
        prepared.raise_first()
        return prepared


def _check_dimensions(call: EmbeddingsCall, choice: Choice) -> None:
    hidden_size = choice.lane.manifest.hidden_size
    if call.dimensions is not None and call.dimensions > hidden_size:
        raise invalid(
            "dimensions",
            f"This model's vectors have {hidden_size} dimensions, got {call.dimensions}.",
            "less_than_equal",
        )


async def _embedded(
    call: EmbeddingsCall,
    choice: Choice,
    sources: Sequence[Source],
    prepared: Prepared,
    pooled: Sequence[Pooled],
) -> list[Embedded]:
    if call.late_chunking:
        embedded, token_ids = _chunks(prepared, pooled[0])
    else:
        embedded = _inputs(choice, sources, prepared, pooled)
        token_ids = [one.token_ids for one in pooled]
    if not call.tokenized:
        return embedded

    def spell() -> list[Embedded]:
        spelled = map(choice.lane.prompter.spelled, token_ids)
        return [
            replace(item, tokens=tokens) for item, tokens in zip(embedded, spelled, strict=True)
        ]

    return await asyncio.to_thread(spell)


def _inputs(
    choice: Choice, sources: Sequence[Source], prepared: Prepared, pooled: Sequence[Pooled]
) -> list[Embedded]:
    embedded = [
        Embedded(index, one.single, one.multi, source.page)
        for index, (source, one) in enumerate(zip(sources, pooled, strict=True))
    ]
    image_pad = choice.lane.manifest.special_token_ids.image_pad
    for index, grid in enumerate(prepared.grids):
        if grid is not None:
            start = pooled[index].token_ids.index(image_pad)
            patches = Patches(start, grid.rows, grid.columns)
            embedded[index] = replace(embedded[index], patches=patches)
    return embedded


def _chunks(prepared: Prepared, pooled: Pooled) -> tuple[list[Embedded], list[tuple[int, ...]]]:
    """One sequence cut into its chunks again, and the tokens of each."""
    prompt = prepared.prompts[0]
    spans = None if isinstance(prompt, (InputError, ImagePrompt)) else prompt.spans
    assert spans is not None  # prepare_chunks made it
    embedded = [
        Embedded(
            index,
            None if pooled.single is None else pooled.single[index],
            None if pooled.multi is None else pooled.multi[span.start : span.stop],
        )
        for index, span in enumerate(spans)
    ]
    return embedded, [pooled.token_ids[span.start : span.stop] for span in spans]
