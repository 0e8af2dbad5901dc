"""What a caller may pass, as one closed union: text or image.

A plain string is text, always, unless it is an image's data URI: a string that happens to name a file
or to start with http is never opened. Which strings are paths is said by the type (`pathlib.Path`) or
by the call (`encode_image`). This module decides what an input is; it decodes nothing.
"""

import base64
import binascii
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from serving.errors import InputError

ImageSource = Image.Image | Path | bytes
"""An image before decoding: decoded already, in a file, or an encoded file's bytes."""

# Longer than any path; what is longer is most likely base64.
_MAX_PATH = 4096

_DATA_URI = re.compile(r"data:image/[\w.+-]+(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Text:
    """A text, without any prompt prefix."""

    text: str


@dataclass(frozen=True, slots=True)
class PageImage:
    """An image or a page, not decoded yet."""

    source: ImageSource


Input = Text | PageImage


def as_input(value: object) -> Input:
    """Say what `value` is.

    Args:
        value: `Text`, `PageImage`, a string (text, or a `data:image/...;base64,` URI), a PIL image, a
            path, bytes of an image file, or `{"text": ...}` / `{"image": ...}`.

    Raises:
        InputError: it is none of these.
    """
    match value:
        case Text() | PageImage():
            return value
        case str() if _DATA_URI.match(value):
            return as_image(value)
        case str():
            return as_text(value)
        case Mapping() if set(value) == {"text"}:
            return as_text(value["text"])
        case Mapping() if set(value) == {"image"}:
            return as_image(value["image"])
        case Mapping():
            raise InputError(
                f"A dict must have exactly one key, 'text' or 'image', not {sorted(map(str, value))}."
            )
        case _:
            return as_image(value)


def as_text(value: object) -> Text:
    """Take `value` as text.

    Raises:
        InputError: it is not a string, or holds lone surrogates that have no UTF-8 form.
    """
    if isinstance(value, Text):
        return value
    if not isinstance(value, str):
        raise InputError(f"A text must be a str, not {type(value).__name__}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"The text has a lone surrogate at character {error.start}; it is not valid Unicode. "
            "Decode the source with errors='replace'."
        ) from error
    return Text(value)


def as_image(value: object) -> PageImage:
    """Take `value` as an image; here a plain string is a path or a data URI.

    Raises:
        InputError: it is not an image, path, bytes or data URI; a URL is named as such.
    """
    match value:
        case PageImage():
            return value
        case Image.Image() | Path() | bytes():
            return PageImage(value)
        case bytearray() | memoryview():
            return PageImage(bytes(value))
        case io.BytesIO():
            return PageImage(value.getvalue())
        case str() if value.lower().startswith(
            ("http://", "https://", "ftp://", "file://", "s3://")
        ):
            raise InputError(
                f"{shortened(value)} is a URL, and nothing is fetched here. "
                "Download it and pass a path, bytes or a PIL image."
            )
        case str() if value.lower().startswith("data:"):
            return PageImage(_decode_data_uri(value))
        case str() if not value or len(value) > _MAX_PATH:
            raise InputError(
                "A string given as an image must be a path or a data URI, not "
                f"{len(value)} characters. Base64 needs 'data:image/png;base64,' before it."
            )
        case str():
            return PageImage(Path(value))
        case _:
            raise InputError(
                "An image must be a PIL image, a path, bytes of an image file or a data URI, "
                f"not {type(value).__name__}."
            )


def _decode_data_uri(uri: str) -> bytes:
    header = _DATA_URI.match(uri)
    if header is None:
        raise InputError(
            f"{shortened(uri)} is not an image's data URI; it must start with 'data:image/<type>;base64,'."
        )
    try:
        return base64.b64decode(uri[header.end() :], validate=True)
    except binascii.Error as error:
        raise InputError(f"The data URI is not valid base64 ({error}).") from error


def shortened(text: str) -> str:
    """A user's string, short enough to stand in a message."""
    return text if len(text) <= 80 else text[:77] + "..."
