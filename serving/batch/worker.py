"""One engine's share of a job: a chunk in, its file out, whatever the engine does meanwhile.

An engine that dies under a chunk may have died of one of its rows, or of something else. The chunk is
tried with others, then alone, then row by row; a row under which the engine dies twice, alone, is
rejected. Knows no Ray: which chunks come here, and how, is decided elsewhere.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from serving.batch.embedding import PdfReading, RowEmbedder
from serving.batch.isolation import Attempts, Turnstile
from serving.batch.job import Job
from serving.batch.keeper import KeptEngine, StartEngine, broken
from serving.batch.part import PartWriter, Result, read_tally
from serving.batch.rows import Chunk, Rejected, Row
from serving.batch.schema import VectorFormat
from serving.batch.tally import Tally
from serving.errors import EngineError
from serving.images import ImageLimits
from serving.pdf import PdfRenderer
from serving.pipeline import Pipeline
from serving.prompts import Prompter

_DEATHS_OF_A_ROW = 2
_LOST_IN_A_ROW = 5
_REASON = "The engine died twice on this row, with nothing else to compute."


class ChunkWorker:
    """Embeds chunks with an engine of its own; on a running loop."""

    def __init__(self, job: Job, start: StartEngine) -> None:
        """Start the engine, in the background.

        Args:
            job: whose chunks come here.
            start: starts an engine.

        Raises:
            CheckpointError: the checkpoint cannot be read here.
        """
        settings = job.settings
        prompter = Prompter.load(job.model)
        manifest = prompter.manifest
        self._output = job.output
        self._format = VectorFormat.of(manifest, settings)
        self._metadata = job.identity.file_metadata()
        self._attempts = Attempts(job.output.attempts)
        self._turnstile = Turnstile()
        self._keeper = KeptEngine(start, job.model, prompter, settings)
        self._renderer = PdfRenderer(settings)
        limits = ImageLimits(
            max_bytes=settings.max_image_bytes,
            max_decoded_pixels=settings.max_decoded_pixels,
            max_aspect_ratio=manifest.image.max_aspect_ratio,
            # Of several frames or pages only the first would be embedded, and the others lost.
            one_frame=True,
        )
        self._embedder = RowEmbedder(
            Pipeline(self._keeper.engine, prompter, limits=limits),
            job.request(manifest),
            PdfReading(
                self._renderer,
                max_bytes=settings.max_pdf_bytes,
                max_page_pixels=settings.max_pixels or manifest.image.max_pixels,
                num_ahead=settings.pdf_processes,
            ),
        )
        self._keeper.start()

    async def embed(self, chunk: Chunk) -> Tally:
        """Embed `chunk` and write its file, unless it is there already; what became of its rows.

        Raises:
            EngineError: the engine does not come up, or does not stay up.
            OutputError: the output cannot be written to.
        """
        path = self._output.part(chunk.index)
        if path.exists():
            return await asyncio.to_thread(read_tally, path)
        name = f"{chunk.index:08}"
        while True:
            # Also marks of a process that died with this chunk.
            num_deaths = self._attempts.count(name)
            tally = (
                await self._try_together(chunk, name)
                if num_deaths == 0
                else await self._try_alone(chunk, name, by_rows=num_deaths > 1)
            )
            if tally is not None:
                self._attempts.end(name)
                return tally

    async def close(self) -> None:
        """Stop the engine, and what renders PDFs."""
        await self._keeper.close()
        await self._renderer.close()

    async def _try_together(self, chunk: Chunk, name: str) -> Tally | None:
        async with self._turnstile.together():
            await self._keeper.ready()
            return await self._attempt(chunk, name)

    async def _try_alone(self, chunk: Chunk, name: str, *, by_rows: bool) -> Tally | None:
        async with self._turnstile.alone():
            self._keeper.is_suspected = False
            try:
                if by_rows:
                    return await self._written(chunk, self._by_rows(chunk, name))
                await self._keeper.ready()
                return await self._attempt(chunk, name)
            finally:
                self._keeper.is_suspected = True

    async def _attempt(self, chunk: Chunk, name: str) -> Tally | None:
        """Embed the whole chunk; None, and a mark, if the engine died under it."""
        with self._output.errors():
            self._attempts.begin(name)
        try:
            return await self._written(chunk, self._embedder.results(chunk.rows))
        except EngineError as error:
            self._keeper.last_error = error
            return None

    async def _by_rows(self, chunk: Chunk, name: str) -> AsyncGenerator[list[Result]]:
        for position, row in enumerate(chunk.rows):
            if isinstance(row, Rejected):
                yield [row]
            else:
                yield await self._one(row, f"{name}-{position}", lost=f"{name}-lost")

    async def _one(self, row: Row, name: str, *, lost: str) -> list[Result]:
        """Embed one row, with the engine to itself, or reject it.

        Raises:
            EngineError: the engine was given up, or dies under one row after the other.
        """
        while self._attempts.count(name) < _DEATHS_OF_A_ROW:
            await self._keeper.ready()
            with self._output.errors():
                self._attempts.begin(name)
            try:
                async with aclosing(self._embedder.results([row])) as parts:
                    results = [result async for part in parts for result in part]
            except EngineError as error:
                self._keeper.last_error = error
                continue
            self._attempts.end(name)
            self._attempts.end(lost)
            return results
        if self._attempts.count(name) == _DEATHS_OF_A_ROW:
            self._keeper.forgive()
            with self._output.errors():
                # Once more than it died: when the chunk is done again, the row is not counted again.
                self._attempts.begin(name)
                num_lost = self._attempts.begin(lost)
            if num_lost >= _LOST_IN_A_ROW:
                raise broken(num_lost, self._keeper.last_error)
        return [
            Rejected(
                row.id, row.where, None, f"{_REASON} Its last words: {self._keeper.last_error}"
            )
        ]

    async def _written(self, chunk: Chunk, parts: AsyncGenerator[list[Result]]) -> Tally:
        """Write the chunk's file from its results, as they come."""
        writer = await asyncio.to_thread(
            PartWriter, self._output, chunk.index, self._format, self._metadata
        )
        try:
            async with aclosing(parts):
                async for part in parts:
                    await asyncio.to_thread(writer.add, part)
            return await asyncio.to_thread(writer.finish, len(chunk.rows))
        finally:
            writer.discard()
