"""Sources read back, as a job would, in any order."""

import csv
import io
import pickle
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import orjson

from serving.batch.rows import Chunk, Rejected, Row
from serving.batch.source import Plan, plan_source
from serving.settings.batch import BatchSettings


def settings(**options: object) -> BatchSettings:
    return BatchSettings.model_validate(options)


def planned(source: Path, **options: object) -> Plan:
    return plan_source(source, settings(**options))


def read(plan: Plan, *, seed: int | None = None) -> list[Row | Rejected]:
    """All rows, in the source's order; a `seed` reads sections, pickled, in another."""
    sections = list(plan.sections)
    if seed is not None:
        sections = pickle.loads(pickle.dumps(sections))
        random.Random(seed).shuffle(sections)
    chunks: list[Chunk] = []
    for section in sections:
        indices = range(section.first_chunk, section.first_chunk + section.num_chunks)
        own = list(section.chunks(indices))
        assert [chunk.index for chunk in own] == list(indices)
        assert sum(len(chunk.rows) for chunk in own) == section.num_rows
        chunks += own
    chunks.sort(key=lambda chunk: chunk.index)
    assert [chunk.index for chunk in chunks] == list(range(plan.num_chunks))
    rows = [row for chunk in chunks for row in chunk.rows]
    assert len(rows) == plan.num_rows
    return rows


def read_source(source: Path, **options: object) -> list[Row | Rejected]:
    return read(planned(source, **options))


def texts_of(rows: Iterable[Row | Rejected]) -> list[object]:
    return [row.content.text if isinstance(row, Row) else row.reason for row in rows]  # type: ignore[union-attr]


def reasons(rows: Iterable[Row | Rejected]) -> dict[str, str]:
    """Why rows were rejected, by where they are."""
    return {row.where: row.reason for row in rows if isinstance(row, Rejected)}


def ids(rows: Iterable[Row | Rejected]) -> list[str]:
    return [row.id for row in rows]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def csv_bytes(rows: Iterable[Sequence[str]], *, line_end: str = "\r\n") -> bytes:
    file = io.StringIO(newline="")
    # The library leaves a carriage return unquoted where lines end without one, and cannot read that back.
    writer = csv.writer(file, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    if "\r" in line_end:
        writer = csv.writer(file, lineterminator=line_end)
    writer.writerows(rows)
    return file.getvalue().encode()


def one_each(plan: Plan) -> dict[int, Chunk]:
    """Each chunk, read by itself."""
    chunks = {}
    for section in plan.sections:
        for index in range(section.first_chunk, section.first_chunk + section.num_chunks):
            (chunk,) = section.chunks([index])
            assert chunk.index == index
            chunks[index] = chunk
    return chunks
