"""Corpora for jobs, and what a job made of them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

Place = tuple[str, int | None]
"""A row's id, and a page."""


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def texts(num_rows: int) -> list[dict[str, object]]:
    return [{"id": f"row-{n}", "text": f"text number {n}"} for n in range(num_rows)]


@dataclass(frozen=True)
class Made:
    """All rows of an output, and all that were rejected, with how often each is there."""

    embedded: Counter[Place]
    rejected: dict[Place, str]

    @property
    def ids(self) -> Counter[str]:
        """How often an id is there, on either side."""
        found = Counter(id_ for id_, page in self.embedded.elements() if page in (None, 1))
        return found + Counter(id_ for id_, _ in self.rejected)


def made(output: Path) -> Made:
    embedded: Counter[Place] = Counter()
    for path in sorted(output.glob("part-*.parquet")):
        table = pq.read_table(path, columns=["id", "page"])
        embedded.update(zip(table["id"].to_pylist(), table["page"].to_pylist(), strict=True))
    rejected: dict[Place, str] = {}
    for path in sorted((output / "_rejected").glob("part-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            place = (row["id"], row["page"])
            assert place not in rejected
            rejected[place] = row["reason"]
    return Made(embedded, rejected)
