"""`POST /playground/pages`: a PDF becomes pictures of its pages, which a browser cannot make without a library.

The very pictures that `/v1/embeddings` would make of the PDF, within the same limits, so that their vectors
are the same whichever way a page was sent. Embeds nothing.
"""

import asyncio
from collections.abc import Sequence

import orjson
import pybase64
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from serving.errors import InputError
from serving.http.answer import JSON
from serving.http.desk import Desk
from serving.http.errors import invalid_input
from serving.http.wire.document import checked, json_object
from serving.http.wire.encoded import bytes_of, pdf_media
from serving.http.wire.items import PdfItem
from serving.http.wire.limits import BodyLimits


class _PagesBody(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    pdf: str


class PagesRoute:
    """Answers `POST /playground/pages`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def answer(self, request: Request) -> Response:
        """`{"pdf": base64}` to `{"pages": [base64 of a PNG, ...]}`, in order.

        Raises:
            HttpError: what is wrong with the request, or with the PDF.
            StoppingError: the server is on its way out.
        """
        async with self._desk.guard.admit(request) as admitted:
            item = await self._desk.parsed(admitted, _parse)
            stages, share, flow = admitted.visit.stages, admitted.share, admitted.flow
            try:
                pictures = await self._desk.sources.pages(item.data, stages, share, flow)
            except InputError as error:
                raise invalid_input("pdf", error) from error
            # Base64 is a third longer, and stands in memory beside what it is made of.
            share.take(sum(4 * (len(picture) + 2) // 3 for picture in pictures))
            body = await asyncio.to_thread(_encode, pictures)
            return self._desk.reply(admitted, body, JSON)


def _parse(body: bytes, limits: BodyLimits) -> PdfItem:
    fields = checked(_PagesBody, json_object(body))
    return PdfItem(bytes_of(fields.pdf, "pdf", pdf_media(limits.max_pdf_bytes)))


def _encode(pictures: Sequence[bytes]) -> bytes:
    return orjson.dumps({"pages": [pybase64.b64encode_as_string(one) for one in pictures]})
