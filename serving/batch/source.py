"""What a source is, and how it is cut into numbered chunks."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from serving.batch.rows import Chunk
from serving.errors import SourceError
from serving.settings.batch import BatchSettings


class Section(Protocol):
    """Neighbouring chunks, which one task reads; picklable."""

    @property
    def first_chunk(self) -> int: ...
    @property
    def num_chunks(self) -> int: ...
    @property
    def num_rows(self) -> int: ...

    def chunks(self, wanted: Collection[int]) -> Iterator[Chunk]:
        """The `wanted` ones of its chunks, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """A source cut into sections; `fingerprint` changes when a run could not continue an old one."""

    sections: tuple[Section, ...]
    num_rows: int
    num_chunks: int
    fingerprint: str


def plan_source(source: Path, settings: BatchSettings) -> Plan:
    """Look at `source`.

    Raises:
        SourceError: it cannot be read.
    """
    raise SourceError(f"{source} cannot be read.")
