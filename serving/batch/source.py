"""What a source is, and how it is cut into numbered chunks."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import xxhash

from serving.batch.rows import Chunk, Content, Pdf, Rejected, Row
from serving.errors import InputError, SourceError
from serving.inputs import as_image, as_text
from serving.settings.batch import BatchSettings

_CHUNKS_PER_SECTION = 16


@dataclass(frozen=True, slots=True)
class Section:
    """Neighbouring chunks of a JSONL file."""

    path: Path
    first_chunk: int
    num_chunks: int
    num_rows: int
    rows_per_file: int
    starts: tuple[int, ...]
    stamp: tuple[int, int]

    def chunks(self, wanted: Collection[int]) -> Iterator[Chunk]:
        """The `wanted` ones of its chunks, in order."""
        stat = self.path.stat()
        if (stat.st_size, stat.st_mtime_ns) != self.stamp:
            raise SourceError(f"{self.path} has changed. Begin another output.")
        with self.path.open("rb") as file:
            for index in sorted(wanted):
                file.seek(self.starts[index - self.first_chunk])
                rows = []
                for number in range(self.rows_per_file):
                    line = file.readline()
                    if not line:
                        break
                    rows.append(_row(self.path, index * self.rows_per_file + number + 1, line))
                yield Chunk(index, tuple(rows))


def _row(path: Path, number: int, line: bytes) -> Row | Rejected:
    where = f"{path.name}:{number}"
    try:
        row = json.loads(line)
        content: Content
        if "pdf" in row:
            content = Pdf(path.parent / row["pdf"])
        elif "image" in row:
            source = as_image(row["image"])
            if isinstance(source.source, Path):
                source = as_image(path.parent / source.source)
            content = source
        else:
            content = as_text(row.get("text"))
    except (InputError, ValueError) as error:
        return Rejected(where, where, None, str(error))
    return Row(str(row.get("id", where)), where, content)


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
    if not source.is_file():
        raise SourceError(f"{source} does not exist.")
    stat = source.stat()
    starts, num_rows, at = [], 0, 0
    with source.open("rb") as file:
        for line in file:
            if num_rows % settings.rows_per_file == 0:
                starts.append(at)
            num_rows += 1
            at += len(line)
    sections = []
    for first in range(0, len(starts), _CHUNKS_PER_SECTION):
        own = tuple(starts[first : first + _CHUNKS_PER_SECTION])
        rows = min(num_rows - first * settings.rows_per_file, len(own) * settings.rows_per_file)
        sections.append(
            Section(
                source.absolute(),
                first,
                len(own),
                rows,
                settings.rows_per_file,
                own,
                (stat.st_size, stat.st_mtime_ns),
            )
        )
    mark = f"{source.name} {stat.st_size} {stat.st_mtime_ns} {settings.rows_per_file}"
    return Plan(tuple(sections), num_rows, len(starts), xxhash.xxh3_64_hexdigest(mark.encode()))
