"""A dataset as a directory, in the layout of ViDoRe and Jina-VDR: written here, read by `reading`.

    DIR/corpus/test-00000-of-00001.parquet     corpus-id, image (encoded, as Hugging Face's `Image`)
    DIR/queries/test-00000-of-00001.parquet    query-id, query
    DIR/qrels/test-00000-of-00001.parquet      query-id, corpus-id, score
    DIR/README.md                              names the three, so that `load_dataset(DIR, "corpus")` works too

Pairs of texts with a score, as tasks of the type STS have them, are one table: `DIR/data/test-....parquet` with
`sentence1`, `sentence2`, `score`. Knows files and columns; nothing of mteb, models or scores.
"""

import io
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from PIL import Image

from benchmarks.quality.errors import DatasetError
from benchmarks.quality.extras import require

SPLIT = "test"
_FILE = f"{SPLIT}-00000-of-00001.parquet"
_ROWS_AT_ONCE = 32

_CARD = """---
configs:
{configs}---

{title}
"""
_CONFIG = """- config_name: {name}
  data_files:
  - split: {split}
    path: {name}/{split}-*
"""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        directory: where.
        num_pages: of the corpus.
        num_queries: with at least one page each.
    """

    directory: Path
    num_pages: int
    num_queries: int


def write_page_dataset(
    directory: str | Path, pages: Iterable[tuple[str, Image.Image, Sequence[str]]]
) -> Written:
    """Write pages and the queries that they answer as a dataset for `polyvec bench quality --task-dir`.

    The directory appears whole or not at all. Pages are taken one after the other and kept as PNG, without
    loss; a query that several pages answer is one query with several relevant pages.

    Args:
        directory: new.
        pages: id, page, and the queries whose answer stands on it, of each page; ids are unique. A page
            without queries is one more that can be found by mistake.

    Raises:
        DatasetError: the directory exists, an id or a query is empty or an id is there twice, there is no
            page, or no query.
        MissingExtraError: pyarrow or datasets is not installed.
    """
    require("datasets", "pyarrow", for_what="Writing a dataset")
    directory = Path(directory)
    if directory.exists():
        raise DatasetError(f"{directory} exists. Remove it, or write to another directory.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that it can be renamed.
    staging = Path(mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        answers: dict[str, list[str]] = {}
        num_pages = _write_corpus(staging, pages, answers)
        if not answers:
            raise DatasetError(
                f"{num_pages} pages and no query: there would be nothing to measure."
            )
        _write_queries(staging, answers)
        _write_card(staging, ["corpus", "queries", "qrels"], f"{num_pages} pages")
        staging.chmod(0o777 & ~_umask())
        staging.rename(directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Written(directory, num_pages, len(answers))


def write_pairs_dataset(
    directory: str | Path, pairs: Iterable[tuple[str, str, float]], *, max_score: float = 5
) -> Path:
    """Write pairs of texts and how alike they are, from 0 to `max_score`, as a dataset of the type STS.

    Raises:
        DatasetError: the directory exists, a score is outside its range, or there are fewer than two pairs.
        MissingExtraError: pyarrow is not installed.
    """
    require("pyarrow", for_what="Writing a dataset")
    import pyarrow as pa
    import pyarrow.parquet as pq

    directory, rows = Path(directory), list(pairs)
    if directory.exists():
        raise DatasetError(f"{directory} exists. Remove it, or write to another directory.")
    if len(rows) < 2:
        raise DatasetError(f"Scores are ranked, which takes two pairs or more, not {len(rows)}.")
    for index, (_, _, score) in enumerate(rows):
        if not 0 <= score <= max_score:
            raise DatasetError(
                f"Pair {index} has the score {score}; scores are 0 to {max_score:g}."
            )
    table = {
        "sentence1": [one for one, _, _ in rows],
        "sentence2": [other for _, other, _ in rows],
        "score": [float(score) * 5 / max_score for _, _, score in rows],
    }
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        (staging / "data").mkdir()
        pq.write_table(pa.table(table), staging / "data" / _FILE)
        staging.chmod(0o777 & ~_umask())
        staging.rename(directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return directory


def _write_corpus(
    staging: Path,
    pages: Iterable[tuple[str, Image.Image, Sequence[str]]],
    answers: dict[str, list[str]],
) -> int:
    """Write the pages as they come; adds to `answers` the pages of each query."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = datasets.Features({"corpus-id": datasets.Value("string"), "image": datasets.Image()})
    schema = features.arrow_schema
    seen: set[str] = set()
    rows: list[dict[str, Any]] = []
    path = _place(staging, "corpus")
    with pq.ParquetWriter(path, schema) as writer:
        for id_, page, queries in pages:
            if not id_ or id_ in seen:
                raise DatasetError(
                    f"Every page has an id of its own, and {id_!r} is empty or there twice."
                )
            seen.add(id_)
            rows.append({"corpus-id": id_, "image": {"bytes": _png(page), "path": f"{id_}.png"}})
            for query in queries:
                if not query.strip():
                    raise DatasetError(f"A query of page {id_!r} is empty. Leave it out.")
                pages_of = answers.setdefault(query, [])
                if id_ not in pages_of:
                    pages_of.append(id_)
            if len(rows) == _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    if not seen:
        raise DatasetError("There is no page to write.")
    return len(seen)


def _write_queries(staging: Path, answers: dict[str, list[str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = {query: f"q{number}" for number, query in enumerate(answers)}
    queries = {"query-id": list(ids.values()), "query": list(ids)}
    pq.write_table(pa.table(queries), _place(staging, "queries"))
    qrels = [(ids[query], page) for query, pages_of in answers.items() for page in pages_of]
    table = {
        "query-id": [query for query, _ in qrels],
        "corpus-id": [page for _, page in qrels],
        "score": [1] * len(qrels),
    }
    pq.write_table(pa.table(table), _place(staging, "qrels"))


def _write_card(staging: Path, names: Sequence[str], title: str) -> None:
    configs = "".join(_CONFIG.format(name=name, split=SPLIT) for name in names)
    card = _CARD.format(configs=configs, title=title)
    (staging / "README.md").write_text(card, encoding="utf-8")


def _place(staging: Path, name: str) -> Path:
    (staging / name).mkdir()
    return staging / name / _FILE


def _png(page: Image.Image) -> bytes:
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def _umask() -> int:
    # Python can only read it by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
