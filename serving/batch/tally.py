"""What became of rows: counts that can be added. Knows neither the rows nor who counts."""

from dataclasses import asdict, dataclass
from typing import Self

import orjson


@dataclass(slots=True)
class Tally:
    """Counts of a chunk, or of a whole run.

    Attributes:
        rows: of the source.
        embedded: rows of the output; a PDF becomes one for each page.
        pages: those of `embedded` that are pages of PDFs.
        rejected: lines among the rejected; a row, or a page of one.
        tokens: of everything embedded, image tokens included.
    """

    rows: int = 0
    embedded: int = 0
    pages: int = 0
    rejected: int = 0
    tokens: int = 0

    def add(self, other: "Tally") -> None:
        """Add the counts of `other`."""
        self.rows += other.rows
        self.embedded += other.embedded
        self.pages += other.pages
        self.rejected += other.rejected
        self.tokens += other.tokens

    def to_json(self) -> bytes:
        """As a JSON object."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: `data` is something else.
        """
        counts = orjson.loads(data)
        try:
            return cls(**counts)
        except TypeError as error:
            raise ValueError(f"{counts!r} are not the counts of a chunk") from error
