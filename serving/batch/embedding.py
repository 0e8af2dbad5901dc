"""Rows through a pipeline: PDFs opened ahead, a few pieces in the engine at once, results in order.

Memory is bounded by pieces and documents, not by rows. Knows neither files of the output nor what is
done about an engine that dies.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

from serving.batch.part import Embedded, Result
from serving.batch.rows import Pdf, Rejected, Row
from serving.engine.protocol import Outcome, Pooled
from serving.errors import EngineError, InputError, NoVectorsError
from serving.inputs import Input, PageImage, Text
from serving.pdf import PdfRenderer
from serving.pipeline import Pipeline, Request

_PIECE = 32
_PIECES_AHEAD = 8
_USELESS_IN_A_ROW = 5


@dataclass(frozen=True, slots=True)
class _Item:
    """One input, and what its result is called."""

    row: Row
    kind: Literal["text", "image", "page"]
    page: int | None
    input: Input


@dataclass(frozen=True, slots=True)
class PdfReading:
    """How PDFs are read.

    Attributes:
        renderer: makes images of pages.
        max_bytes: of a PDF.
        max_page_pixels: of use to the model.
        num_ahead: documents opened before their turn.
    """

    renderer: PdfRenderer
    max_bytes: int
    max_page_pixels: int
    num_ahead: int


class RowEmbedder:
    """Embeds rows with one pipeline, all for the same request."""

    def __init__(self, pipeline: Pipeline, request: Request, pdfs: PdfReading) -> None:
        self._pipeline, self._request, self._pdfs = pipeline, request, pdfs
        self._useless: list[str] = []
        """Ids of the last rows, one after the other, that were computed and have no usable vectors."""

    async def results(self, rows: Sequence[Row | Rejected]) -> AsyncGenerator[list[Result]]:
        """Results in the order of `rows`, some at a time; a row that cannot be embedded is rejected.

        Raises:
            EngineError: the engine cannot answer.
        """
        running: deque[asyncio.Task[list[Result]]] = deque()
        try:
            async with aclosing(self._pieces(rows)) as pieces:
                async for piece in pieces:
                    running.append(asyncio.create_task(self._embed(piece)))
                    while len(running) >= _PIECES_AHEAD or (running and running[0].done()):
                        yield await running.popleft()
                while running:
                    yield await running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _embed(self, piece: list[_Item | Rejected]) -> list[Result]:
        inputs = [item.input for item in piece if isinstance(item, _Item)]
        outcomes = iter(await self._pipeline.embed(inputs, self._request))
        results: list[Result] = []
        for item in piece:
            if isinstance(item, Rejected):
                results.append(item)
                continue
            outcome = next(outcomes)
            self._judge(item.row, outcome)
            if isinstance(outcome, InputError):
                results.append(_rejected(item.row, outcome, page=item.page))
            else:
                results.append(self._embedded(item, outcome))
        return results

    def _judge(self, row: Row, outcome: Outcome) -> None:
        """One row without usable vectors is the row's; many in a row are the engine's.

        Raises:
            EngineError: they are many.
        """
        if isinstance(outcome, Pooled):
            self._useless = []
        elif isinstance(outcome, NoVectorsError):
            if row.id not in self._useless[-1:]:
                self._useless = [*self._useless, row.id][-_USELESS_IN_A_ROW:]
            if len(self._useless) >= _USELESS_IN_A_ROW:
                raise EngineError(
                    f"The engine gave no usable vectors for {len(self._useless)} rows in a row, so it is the "
                    f"engine and not the rows. Of the last: {outcome.reason}"
                )

    def _embedded(self, item: _Item, pooled: Pooled) -> Embedded:
        vector = pooled.multi if self._request.want.multi else pooled.single
        assert vector is not None  # the request asked for exactly this
        return Embedded(item.row.id, item.kind, item.page, vector, len(pooled.token_ids))

    async def _pieces(
        self, rows: Sequence[Row | Rejected]
    ) -> AsyncGenerator[list[_Item | Rejected]]:
        piece: list[_Item | Rejected] = []
        async with aclosing(self._items(rows)) as items:
            async for item in items:
                piece.append(item)
                if len(piece) == _PIECE:
                    yield piece
                    piece = []
        if piece:
            yield piece

    async def _items(self, rows: Sequence[Row | Rejected]) -> AsyncGenerator[_Item | Rejected]:
        waiting: deque[_Item | Rejected | asyncio.Task[list[_Item | Rejected]]] = deque()
        num_open = 0
        try:
            for row in rows:
                waiting.append(self._begun(row))
                num_open += isinstance(waiting[-1], asyncio.Task)
                while waiting and (num_open > self._pdfs.num_ahead or num_open == 0):
                    first = waiting.popleft()
                    if isinstance(first, asyncio.Task):
                        num_open -= 1
                        for item in await first:
                            yield item
                    else:
                        yield first
            while waiting:
                first = waiting.popleft()
                if isinstance(first, asyncio.Task):
                    for item in await first:
                        yield item
                else:
                    yield first
        finally:
            tasks = [one for one in waiting if isinstance(one, asyncio.Task)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begun(
        self, row: Row | Rejected
    ) -> "_Item | Rejected | asyncio.Task[list[_Item | Rejected]]":
        if isinstance(row, Rejected):
            return row
        match row.content:
            case Text():
                return _Item(row, "text", None, row.content)
            case PageImage():
                return _Item(row, "image", None, row.content)
            case Pdf():
                return asyncio.create_task(self._opened(row, row.content))
            case _:
                assert_never(row.content)

    async def _opened(self, row: Row, pdf: Pdf) -> list[_Item | Rejected]:
        """The pages of a document; one that cannot be opened is rejected as a whole."""
        try:
            data = await self._read(pdf)
            pages = await self._pdfs.renderer.render(
                data, max_page_pixels=self._pdfs.max_page_pixels
            )
        except InputError as error:
            return [_rejected(row, error, page=None)]
        return [_Item(row, "page", number, PageImage(page)) for number, page in enumerate(pages, 1)]

    async def _read(self, pdf: Pdf) -> bytes:
        if isinstance(pdf.source, bytes):
            return pdf.source
        return await asyncio.to_thread(_read_bounded, pdf.source, self._pdfs.max_bytes)


def _read_bounded(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            # One byte more tells that there are more; the renderer refuses it.
            return file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error


def _rejected(row: Row, error: InputError, *, page: int | None) -> Rejected:
    return Rejected(row.id, row.where, page, error.reason)
