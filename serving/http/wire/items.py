"""What one input of a request is once its wire form has been read: a closed union.

Base64 is decoded, a URL is only known to be one. It does not know how an input was spelled, fetches
nothing and decodes no image. Contents stay out of every repr, so that no log can show them.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TextItem:
    """A text without prompt prefix; valid Unicode, possibly empty."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokensItem:
    """A text that the caller has tokenised; at least one id, none negative."""

    token_ids: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ImageItem:
    """The bytes of an image file, not looked into yet."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ImageUrlItem:
    """Where an image can be fetched: an http(s) URL, not looked into yet."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PdfItem:
    """The bytes of a PDF, not looked into yet."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PdfUrlItem:
    """Where a PDF can be fetched: an http(s) URL, not looked into yet."""

    url: str = field(repr=False)


Item = TextItem | TokensItem | ImageItem | ImageUrlItem | PdfItem | PdfUrlItem
"""One input. A PDF stands for as many vectors as it has pages."""
