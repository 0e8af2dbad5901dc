"""Rows of a corpus, numbered chunks of them, and rows that were rejected.

It does not know what rows are read from, nor what they become.
"""

from dataclasses import dataclass
from pathlib import Path

from serving.inputs import PageImage, Text


@dataclass(frozen=True, slots=True)
class Pdf:
    """A PDF, not opened yet."""

    source: Path | bytes


Content = Text | PageImage | Pdf


@dataclass(frozen=True, slots=True)
class Row:
    """One row that can be tried.

    Attributes:
        id: given by the source, or derived and stable.
        where: file and 1-based row or line, or the file's path.
        content: what is to be embedded.
    """

    id: str
    where: str
    content: Content


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row, or one page of it, without an embedding.

    Attributes:
        id: its id, or the derived one where it has none.
        where: see `Row`.
        page: from 1, or None for the whole row.
        reason: why.
    """

    id: str
    where: str
    page: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of the source that become one file of the output.

    Attributes:
        index: from 0, over the whole source.
        rows: in the source's order.
    """

    index: int
    rows: tuple[Row | Rejected, ...]
