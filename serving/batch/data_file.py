"""A file that holds many rows: what kind it is, and whether it is still the one that was planned with.

It does not know how a kind is read.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from serving.batch.walk import spelled
from serving.errors import SourceError

Compression = Literal["gzip", "zstd"]


class Kind(Enum):
    """What a file with many rows is, by its suffix."""

    JSONL = "JSON Lines"
    CSV = "CSV"
    TSV = "tab-separated values"
    PARQUET = "parquet"


KINDS = {
    ".jsonl": Kind.JSONL,
    ".ndjson": Kind.JSONL,
    ".csv": Kind.CSV,
    ".tsv": Kind.TSV,
    ".parquet": Kind.PARQUET,
}
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}


def kind_of(name: str) -> Kind | None:
    """What the file `name` is, or None for one that holds a single row or none."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    if not suffixes:
        return None
    if suffixes[-1] not in COMPRESSIONS:
        return KINDS.get(suffixes[-1])
    kind = KINDS.get(suffixes[0]) if len(suffixes) > 1 else None
    return None if kind is Kind.PARQUET else kind  # it is compressed within


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file with many rows.

    Attributes:
        root: the source, or the directory that it is in.
        name: from there, as the file system has it.
        size_bytes: when the source was planned.
        mtime_ns: as well.
    """

    root: Path
    name: str
    size_bytes: int
    mtime_ns: int

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.root / self.name

    @property
    def directory(self) -> Path:
        """Where the relative paths in it begin."""
        return self.path.parent

    @property
    def label(self) -> str:
        """Its name for messages and ids."""
        return spelled(self.name)

    @property
    def kind(self) -> Kind:
        """What it is."""
        kind = kind_of(self.name)
        assert kind is not None
        return kind

    @property
    def compression(self) -> Compression | None:
        """What must be undone to read its lines."""
        return COMPRESSIONS.get(Path(self.name).suffix.lower())

    def check(self) -> None:
        """Make sure that it is as it was.

        Raises:
            SourceError: it has changed or is gone.
        """
        try:
            found = self.path.stat()
        except OSError as error:
            raise SourceError(
                f"{self.label} was there when the job began, and is not any more: {error.strerror}."
            ) from error
        if (found.st_size, found.st_mtime_ns) != (self.size_bytes, self.mtime_ns):
            raise SourceError(
                f"{self.label} has changed since the job began. Begin again, with another output."
            )
