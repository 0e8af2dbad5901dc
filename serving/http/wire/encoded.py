"""A file inside a JSON string: base64 or a data URI becomes bytes, a URL is recognised as one.

Lenient where clients differ (alphabet, padding, line breaks), strict about everything else. It does
not know what the bytes hold, and fetches nothing.
"""

import binascii
import re
from dataclasses import dataclass

import pybase64

from serving.http.errors import invalid

MAX_URL_CHARS = 8192

_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
_WHITESPACE = b" \t\r\n\x0b\x0c"
_UNUSUAL = b"-_" + _WHITESPACE
_MAX_DATA_URI_HEADER = 256


@dataclass(frozen=True, slots=True)
class Media:
    """A kind of file.

    Attributes:
        noun: what messages call it.
        data_uri: matches the head of its data URIs, up to the first base64 character.
        example: the head of one, for messages.
        max_bytes: after base64.
    """

    noun: str
    data_uri: re.Pattern[str]
    example: str
    max_bytes: int


def image_media(max_bytes: int) -> Media:
    """Images of any type; which of them can be decoded is not known here."""
    return Media("image", _IMAGE_URI, "data:image/png;base64,", max_bytes)


def pdf_media(max_bytes: int) -> Media:
    """PDFs."""
    return Media("PDF", _PDF_URI, "data:application/pdf;base64,", max_bytes)


_IMAGE_URI = re.compile(r"data:image/[\w.+-]+(?:;[\w=.+-]+)*;base64,", re.IGNORECASE | re.ASCII)
_PDF_URI = re.compile(r"data:application/pdf(?:;[\w=.+-]+)*;base64,", re.IGNORECASE | re.ASCII)


def is_image_uri(text: str) -> bool:
    """Whether a plain string is an image after all."""
    # Nearly every string is a text, and pays for this comparison alone.
    return text[:11].lower() == "data:image/" and _header(_IMAGE_URI, text) is not None


def is_url(text: str) -> bool:
    """Whether `text` is an http(s) URL, going by its scheme."""
    return text[:8].lower().startswith(("http://", "https://"))


def url_of(text: str, field: str) -> str:
    """The URL in `text`.

    Raises:
        HttpError: it is longer than any that is fetched.
    """
    if len(text) > MAX_URL_CHARS:
        raise invalid(
            field,
            f"A URL has at most {MAX_URL_CHARS} characters, got {len(text)}. Send base64 instead.",
            "url_too_long",
        )
    return text


def bytes_of(text: str, field: str, media: Media) -> bytes:
    """The file in `text`, a data URI or base64.

    Raises:
        HttpError: it is neither, is empty, or is larger than `media` allows.
    """
    try:
        encoded = _without_header(text, field, media).encode("ascii")
    except UnicodeEncodeError:
        raise _not_base64(field, media) from None
    # Looking for these costs a ninth of replacing them, and most files have none.
    if any(octet in encoded for octet in _UNUSUAL):
        encoded = encoded.translate(_STANDARD_ALPHABET, _WHITESPACE)
    digits = encoded.rstrip(b"=")
    num_padding = len(encoded) - len(digits)
    if num_padding > 2 or (num_padding and len(encoded) % 4) or len(digits) % 4 == 1:
        raise _not_base64(field, media)
    num_bytes = len(digits) * 3 // 4
    if num_bytes == 0:
        raise invalid(field, f"The {media.noun} is empty.", "empty")
    if num_bytes > media.max_bytes:
        raise invalid(
            field,
            f"A {media.noun} has at most {media.max_bytes} bytes, got {num_bytes}. "
            "Send a smaller one.",
            "too_large",
        )
    try:
        return pybase64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error:
        raise _not_base64(field, media) from None


def _without_header(text: str, field: str, media: Media) -> str:
    if text[:5].lower() != "data:":
        return text
    header = _header(media.data_uri, text)
    if header is None:
        raise invalid(
            field,
            f"A data URI of this kind of input starts as {media.example} does; this one does not.",
            "data_uri_invalid",
        )
    return text[header.end() :]


def _header(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return pattern.match(text, 0, _MAX_DATA_URI_HEADER)


def _not_base64(field: str, media: Media) -> Exception:
    return invalid(
        field,
        f"The {media.noun} is neither an http(s) URL nor valid base64.",
        "base64_invalid",
    )
