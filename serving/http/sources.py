"""A request's items as inputs of the pipeline: URLs fetched, PDFs cut into pages, ids spelled out.

Knows where bytes come from; not what becomes of them.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import assert_never

from serving.errors import InputError
from serving.http.body import Share
from serving.http.fetch import Fetcher
from serving.http.record import InputCounts
from serving.http.stages import Stage, Stages
from serving.http.wire.items import (
    ImageItem,
    ImageUrlItem,
    Item,
    PdfItem,
    PdfUrlItem,
    TextItem,
    TokensItem,
)
from serving.inputs import Input, PageImage, Text
from serving.pdf import PdfRenderer
from serving.places import Places
from serving.preparing import in_preparing_thread, pieces
from serving.prompts import Prompter
from serving.together import together
from serving.turns import Flow

_FETCHES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Source:
    """One input.

    Attributes:
        input: what is embedded.
        page: its number in a PDF, from 1; None for anything else.
    """

    input: Input
    page: int | None = None


class Sources:
    """Opens items."""

    def __init__(
        self,
        fetcher: Fetcher,
        pdfs: PdfRenderer,
        preparing: Places,
        *,
        max_image_bytes: int,
        max_pdf_bytes: int,
        max_page_pixels: int,
    ) -> None:
        self._fetcher = fetcher
        self._pdfs = pdfs
        self._preparing = preparing
        self._max_image_bytes = max_image_bytes
        self._max_pdf_bytes = max_pdf_bytes
        self._max_page_pixels = max_page_pixels

    async def open(
        self,
        items: Sequence[Item],
        prompter: Prompter,
        stages: Stages,
        share: Share,
        flow: Flow,
        *,
        max_chars: int,
    ) -> list[Source]:
        """The inputs of `items`, in order; a PDF becomes its pages, and token ids up to `max_chars`.

        Raises:
            InputError: an item cannot be had; names its position.
            HttpError: what was fetched or rendered is too much to hold.
        """
        texts = [Source(Text(item.text)) for item in items if type(item) is TextItem]
        if len(texts) == len(items):
            return texts
        spelled = await self._spell(items, prompter, flow, max_chars)
        opening = _Opening(spelled, stages, share, flow, asyncio.Semaphore(_FETCHES_AT_ONCE))
        parts = await together(self._open(index, item, opening) for index, item in enumerate(items))
        return [source for part in parts for source in part]

    async def pages(self, data: bytes, stages: Stages, share: Share, flow: Flow) -> list[bytes]:
        """The pages of a PDF as pictures, in order.

        Raises:
            InputError: it cannot be rendered.
            HttpError: its pages are too much to hold.
        """
        with stages.measure(Stage.PREPARE):
            pages = await self._pdfs.render(data, max_page_pixels=self._max_page_pixels, flow=flow)
        share.take(sum(map(len, pages)))
        return pages

    async def _spell(
        self, items: Sequence[Item], prompter: Prompter, flow: Flow, max_chars: int
    ) -> dict[int, Text]:
        tokenised = [
            (index, item.token_ids)
            for index, item in enumerate(items)
            if isinstance(item, TokensItem)
        ]
        num_chars = sum(len(item.text) for item in items if isinstance(item, TextItem))
        texts: dict[int, Text] = {}
        for piece in pieces(tokenised, lambda one: len(one[1])):
            async with self._preparing.taken(flow):
                spelled = await in_preparing_thread(partial(_spelled, tokenised[piece], prompter))
            for index, text in spelled.items():
                num_chars += len(text.text)
                if num_chars > max_chars:
                    raise InputError(
                        f"The texts up to this one have more than {max_chars} characters "
                        "together. Send several requests.",
                        index=index,
                    )
            texts |= spelled
        return texts

    async def _open(self, index: int, item: Item, opening: "_Opening") -> list[Source]:
        try:
            match item:
                case TextItem():
                    return [Source(Text(item.text))]
                case TokensItem():
                    return [Source(opening.spelled[index])]
                case ImageItem():
                    return [Source(PageImage(item.data))]
                case ImageUrlItem():
                    data = await self._fetched(item.url, self._max_image_bytes, opening)
                    return [Source(PageImage(data))]
                case PdfItem():
                    return await self._pages(item.data, opening)
                case PdfUrlItem():
                    data = await self._fetched(item.url, self._max_pdf_bytes, opening)
                    return await self._pages(data, opening)
                case _:
                    assert_never(item)
        except InputError as error:
            raise error.at(index) from error

    async def _fetched(self, url: str, max_bytes: int, opening: "_Opening") -> bytes:
        async with opening.fetches:
            with opening.stages.measure(Stage.FETCH):
                data = await self._fetcher.fetch(url, max_bytes=max_bytes, flow=opening.flow)
        opening.share.take(len(data))
        return data

    async def _pages(self, data: bytes, opening: "_Opening") -> list[Source]:
        pages = await self.pages(data, opening.stages, opening.share, opening.flow)
        return [Source(PageImage(page), number) for number, page in enumerate(pages, start=1)]


@dataclass(frozen=True, slots=True)
class _Opening:
    """What the items of one request share.

    Attributes:
        spelled: texts of the items that came as token ids, by position.
        stages: the request's.
        share: counts what is brought into memory.
        flow: whose turns it takes.
        fetches: one request does not take all places of the fetcher.
    """

    spelled: Mapping[int, Text]
    stages: Stages
    share: Share
    flow: Flow
    fetches: asyncio.Semaphore


def _spelled(
    tokenised: Sequence[tuple[int, tuple[int, ...]]], prompter: Prompter
) -> dict[int, Text]:
    texts: dict[int, Text] = {}
    for index, token_ids in tokenised:
        try:
            texts[index] = prompter.text_of(token_ids)
        except InputError as error:
            raise error.at(index) from error
    return texts


def counts_of(items: Sequence[Item], sources: Sequence[Source] | None = None) -> InputCounts:
    """Inputs by kind; a PDF counts as one page until it is known how many it has."""
    of = Counter(map(type, items))
    page = of[PdfItem] + of[PdfUrlItem]
    if page and sources is not None:
        page = sum(source.page is not None for source in sources)
    return InputCounts(
        text=of[TextItem], image=of[ImageItem] + of[ImageUrlItem], page=page, tokens=of[TokensItem]
    )
