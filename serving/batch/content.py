"""What the cells of a row mean: its id, and the one thing that it holds.

It does not know what rows are read from, and opens no file: a path that leads nowhere is found by whoever
opens it.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path

from serving.batch.rows import Content, Pdf, Rejected, Row
from serving.errors import InputError
from serving.inputs import as_image, as_text, shortened
from serving.settings.batch import BatchSettings

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_PDF_DATA_URI = re.compile(r"data:application/pdf(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)
_DEFAULT_ID = "id"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are read; `id_is_needed` says that a row without an id is rejected."""

    id: str
    id_is_needed: bool
    text: str
    image: str
    pdf: str

    @classmethod
    def of(cls, settings: BatchSettings) -> "Columns":
        """The columns that `settings` name."""
        return cls(
            id=_DEFAULT_ID if settings.id_column is None else settings.id_column,
            id_is_needed=settings.id_column is not None,
            text=settings.text_column,
            image=settings.image_column,
            pdf=settings.pdf_column,
        )

    @property
    def contents(self) -> tuple[str, str, str]:
        """The columns of which a row has one."""
        return (self.text, self.image, self.pdf)

    @property
    def names(self) -> tuple[str, str, str, str]:
        """All of them, in the order of `Cells`."""
        return (self.id, self.text, self.image, self.pdf)


@dataclass(frozen=True, slots=True)
class Cells:
    """The values of one row, None where it has none; values may be of any type."""

    id: object
    text: object
    image: object
    pdf: object


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row is.

    Attributes:
        where: its file and 1-based row or line; also its id, if it has no other.
        directory: where its relative paths begin.
    """

    where: str
    directory: Path

    def rejected(self, reason: str) -> Rejected:
        """The row, which could not be read."""
        return Rejected(self.where, self.where, None, reason)


def row_of(cells: Cells, place: Place, columns: Columns) -> Row | Rejected:
    """The row that `cells` are, or why they are none."""
    id_ = _id(cells.id)
    if id_ is None:
        if columns.id_is_needed:
            return place.rejected(_no_id(cells.id, columns.id))
        id_ = place.where
    try:
        return Row(id_, place.where, _content(cells, place.directory, columns))
    except InputError as error:
        return Rejected(id_, place.where, None, error.reason)


def _id(value: object) -> str | None:
    match value:
        case bool():  # an int, for Python
            return None
        case int():
            return str(value)
        case str() if value:
            return value
        case _:
            return None


def _no_id(value: object, column: str) -> str:
    match value:
        case None:
            got = "nothing"
        case "":
            got = "an empty string"
        case _:
            got = type(value).__name__
    return f"The id in column {column!r} must be a string or an integer, not {got}."


def _content(cells: Cells, directory: Path, columns: Columns) -> Content:
    image = _unwrapped(cells.image, columns.image)
    pdf = _unwrapped(cells.pdf, columns.pdf)
    values = (cells.text, image, pdf)
    given = [
        name for name, value in zip(columns.contents, values, strict=True) if value is not None
    ]
    if len(given) != 1:
        wanted = ", ".join(map(repr, columns.contents))
        got = " and ".join(map(repr, given)) if given else "none"
        raise InputError(f"A row must have a value in exactly one of {wanted}; this has {got}.")
    if cells.text is not None:
        return as_text(cells.text)
    if image is not None:
        return _image(image, directory)
    return Pdf(_pdf_source(pdf, directory))


def _unwrapped(value: object, column: str) -> object:
    """What is in `{"bytes": ..., "path": ...}`, which is how datasets store files; None is nothing."""
    if not isinstance(value, dict):
        return value
    if not value or not set(value) <= {"bytes", "path"}:
        raise InputError(
            f"An object in column {column!r} must have the keys 'bytes' and 'path', "
            f"not {shortened(str(sorted(map(str, value))))}."
        )
    data = value.get("bytes")
    if data is None:
        return value.get("path")
    if not isinstance(data, bytes):
        raise InputError(
            f"'bytes' in column {column!r} must be bytes, not {type(data).__name__}. "
            "A string may be a data URI, without an object around it."
        )
    return data


def _image(value: object, directory: Path) -> Content:
    if isinstance(value, str):
        _refuse_nonlocal(value)
    image = as_image(value)
    return as_image(directory / image.source) if isinstance(image.source, Path) else image


def _pdf_source(value: object, directory: Path) -> Path | bytes:
    match value:
        case bytes():
            return value
        case str() if value.lower().startswith("data:"):
            return _decoded(value)
        case "":
            raise InputError("A string given as a PDF must be a path or a data URI; this is empty.")
        case str():
            _refuse_nonlocal(value)
            return directory / value
        case _:
            raise InputError(
                f"A PDF must be a path, bytes or a data URI, not {type(value).__name__}."
            )


def _refuse_nonlocal(value: str) -> None:
    if _URL.match(value):
        raise InputError(
            f"{shortened(value)} is a URL, and nothing is fetched here. Download it and give its path."
        )
    if "\0" in value:
        raise InputError(f"The path {shortened(value)!r} has a NUL character.")


def _decoded(uri: str) -> bytes:
    header = _PDF_DATA_URI.match(uri)
    if header is None:
        raise InputError(
            f"{shortened(uri)} is not a PDF's data URI; it must start with 'data:application/pdf;base64,'."
        )
    try:
        return base64.b64decode(uri[header.end() :], validate=True)
    except binascii.Error as error:
        raise InputError(f"The data URI is not valid base64 ({error}).") from error
