"""How an input may be spelled in JSON, for the API's documentation.

The server's OpenAPI is made from these; `item_reader` is what reads inputs. It knows no limits.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, use_attribute_docstrings=True)


class TextPart(_Part):
    """A text."""

    text: Annotated[str, Field(examples=["Organic skincare for sensitive skin"])]
    """The text; may be empty."""


class Url(_Part):
    """A URL inside an object, as in OpenAI's messages."""

    url: str
    """An http(s) URL or a data URI of an image."""


class BytesPart(_Part):
    """An image by its bytes."""

    bytes: str
    """Base64, or a data URI of an image."""


class ImagePart(_Part):
    """An image."""

    image: Annotated[str | Url | BytesPart, Field(examples=["https://example.com/page.png"])]
    """An http(s) URL, base64 (standard or URL-safe, padding optional), or a data URI of an image."""


class ImageUrlPart(_Part):
    """An image, spelled as in OpenAI's messages."""

    image_url: Url | str
    """An http(s) URL or a data URI of an image."""


class UrlPart(Url):
    """An image by URL."""


class PdfPart(_Part):
    """A PDF: one vector for each of its pages; alone in its request."""

    pdf: Annotated[str, Field(examples=["https://example.com/paper.pdf"])]
    """An http(s) URL, base64, or a data URI of type application/pdf."""


class ContentPart(_Part):
    """An input spelled as the content of a chat message, with exactly one part."""

    content: Annotated[list[TextPart | ImageUrlPart | ImagePart], Field(min_length=1, max_length=1)]
    """One text or one image."""


TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]

InputDocument = (
    str | TextPart | ImagePart | ImageUrlPart | UrlPart | BytesPart | ContentPart | TokenIds
)
InputDocuments = Annotated[list[InputDocument], Field(min_length=1)]
PdfAlone = PdfPart | Annotated[list[PdfPart], Field(min_length=1, max_length=1)]
