"""A dataset directory as tables: what `dataset` writes, and the layouts of MTEB, ViDoRe and BEIR.

A table is a folder or a file of its name (`corpus/*.parquet`, `queries.jsonl`, `qrels/test.tsv`), its columns in
any of the usual spellings. Knows files and columns; nothing of mteb or of models.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from benchmarks.quality.dataset import SPLIT
from benchmarks.quality.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Relevant = dict[str, dict[str, int]]
"""The relevance of documents, by query."""

_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
_IDS = {"corpus": ("id", "_id", "corpus-id"), "queries": ("id", "_id", "query-id")}
_TEXTS = ("text", "query")
_LAYOUT = (
    "It needs corpus, queries and qrels (corpus/*.parquet, queries.jsonl, qrels/test.tsv, ...), or pairs with "
    "sentence1, sentence2 and score in data/*.parquet."
)


@dataclass(frozen=True, slots=True)
class RetrievalData:
    """Documents, queries, and which of the first answer which of the second.

    Attributes:
        name: of the directory.
        digest: of its files.
        corpus: `id`, and `text`, `image` or both; `title` where there is one.
        queries: `id`, and `text`, `image` or both.
        relevant: by query; every id is in the tables.
    """

    name: str
    digest: str
    corpus: "Dataset"
    queries: "Dataset"
    relevant: Relevant


@dataclass(frozen=True, slots=True)
class PairsData:
    """Pairs of texts and how alike they are.

    Attributes:
        name: of the directory.
        digest: of its files.
        pairs: `sentence1`, `sentence2`, `score`.
    """

    name: str
    digest: str
    pairs: "Dataset"


def read_dataset(directory: Path) -> RetrievalData | PairsData:
    """Read what lies in `directory`.

    Raises:
        DatasetError: it holds no dataset, or one whose parts do not fit each other.
    """
    if not directory.is_dir():
        raise DatasetError(f"{directory} is not a directory. {_LAYOUT}")
    names = ("corpus", "queries", "qrels")
    files = {name: _files(directory, name) for name in names}
    if not all(files.values()):
        pairs = _files(directory, "data")
        if pairs:
            return _pairs(directory, pairs)
        missing = [name for name in names if not files[name]]
        raise DatasetError(f"{directory} holds no {' and no '.join(missing)}. {_LAYOUT}")
    corpus = inputs_of(read_table(files["corpus"]), "corpus", directory)
    queries = inputs_of(read_table(files["queries"]), "queries", directory)
    relevant = _relevant(read_table(files["qrels"]), corpus, queries, directory)
    digest = _digest(directory, [path for found in files.values() for path in found])
    return RetrievalData(directory.resolve().name, digest, corpus, queries, relevant)


def _files(directory: Path, name: str) -> list[Path]:
    """The files of one table: of the split `test` where files are named after splits."""
    single = [directory / f"{name}{suffix}" for suffix in _SUFFIXES]
    found = [path for path in single if path.is_file()]
    if not found and (directory / name).is_dir():
        found = sorted(p for p in (directory / name).iterdir() if p.suffix in _SUFFIXES)
        found = [path for path in found if path.name.startswith(SPLIT)] or found
    return found


def read_table(paths: Sequence[Path]) -> "pa.Table":
    """Files of one table, as one.

    Raises:
        DatasetError: a file cannot be read, or they do not fit each other.
    """
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.json as pa_json
    import pyarrow.parquet as pq

    unknown = [path for path in paths if path.suffix not in _SUFFIXES]
    if unknown:
        raise DatasetError(f"{unknown[0]} is none of {', '.join(_SUFFIXES)}.")
    parts = []
    try:
        for path in paths:
            match path.suffix:
                case ".parquet":
                    # Mapped: a corpus of pages is larger than what is read of it at once.
                    parts.append(pq.read_table(path, memory_map=True))
                case ".jsonl" | ".json":
                    parts.append(pa_json.read_json(path))
                case suffix:
                    delimiter = "\t" if suffix == ".tsv" else ","
                    options = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
                    parts.append(pa_csv.read_csv(path, parse_options=options))
        return pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{', '.join(map(str, paths))} cannot be read as one table: {error}"
        ) from error


def inputs_of(table: "pa.Table", name: str, directory: Path) -> "Dataset":
    """`table` with `id`, `text`, `title` and `image` alone, under these names.

    Args:
        table: of documents or queries, in any of the usual spellings.
        name: "corpus" or "queries".
        directory: to which paths of images are relative.

    Raises:
        DatasetError: a column is missing, or an id is there twice.
    """
    import datasets
    import pyarrow as pa

    columns = table.column_names
    id_ = next((column for column in _IDS[name] if column in columns), None)
    if id_ is None:
        raise DatasetError(
            f"{name} of {directory} has the columns {columns}; one of {list(_IDS[name])} is its id."
        )
    text = next((column for column in _TEXTS if column in columns), None)
    kept = {"id": id_} | ({"text": text} if text else {})
    kept |= {column: column for column in ("title", "image") if column in columns}
    if not {"text", "image"} & kept.keys():
        raise DatasetError(
            f"{name} of {directory} has the columns {columns}; neither text nor image is there."
        )
    features = {
        column: datasets.Image() if column == "image" else datasets.Value("string")
        for column in kept
    }
    arrays = {
        column: _images(table[old], directory) if column == "image" else table[old].cast("string")
        for column, old in kept.items()
    }
    if "title" in arrays:
        arrays["title"] = arrays["title"].fill_null("")
    _check_ids(arrays["id"].to_pylist(), name, directory)
    empty = next((column for column, values in arrays.items() if values.null_count), None)
    if empty is not None:
        raise DatasetError(
            f"{name} of {directory} has rows without {empty}. Every row has what the first one has."
        )
    info = datasets.DatasetInfo(features=datasets.Features(features))
    return datasets.Dataset(pa.table(arrays), info=info)


def _check_ids(ids: Sequence[str], name: str, directory: Path) -> None:
    if not ids:
        raise DatasetError(f"{name} of {directory} is empty.")
    id_, times = Counter(ids).most_common(1)[0]
    if times > 1 or None in ids:
        raise DatasetError(
            f"{name} of {directory} has the id {id_!r} {times} times. Ids are unique."
        )


def _images(column: "pa.ChunkedArray", directory: Path) -> "pa.ChunkedArray":
    """Encoded images, or their paths, as Hugging Face's `Image` stores either."""
    import datasets
    import pyarrow as pa

    image = datasets.Image()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        paths = [str(directory / path) for path in column.to_pylist()]
        missing = next((path for path in paths if not Path(path).is_file()), None)
        if missing is not None:
            raise DatasetError(f"{missing} is not there; paths of images are relative to the data.")
        column = pa.chunked_array([pa.array(paths, pa.string())])
    try:
        parts = [image.cast_storage(chunk) for chunk in column.chunks]
    except (pa.ArrowException, TypeError) as error:
        raise DatasetError(f"The images of {directory} cannot be read: {error}.") from error
    return pa.chunked_array(parts, image.pa_type)


def _relevant(
    qrels: "pa.Table", corpus: "Dataset", queries: "Dataset", directory: Path
) -> Relevant:
    needed = {"query-id", "corpus-id", "score"}
    if not needed <= set(qrels.column_names):
        raise DatasetError(
            f"qrels of {directory} has the columns {qrels.column_names}; it needs {sorted(needed)}."
        )
    known = {"query-id": set(queries["id"]), "corpus-id": set(corpus["id"])}
    found: Relevant = {}
    for row in qrels.select(sorted(needed)).to_pylist():
        for column, ids in known.items():
            if str(row[column]) not in ids:
                raise DatasetError(
                    f"qrels of {directory} names {row[column]!r} as {column}, which is not there."
                )
        found.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(row["score"])
    if not any(score > 0 for documents in found.values() for score in documents.values()):
        raise DatasetError(f"qrels of {directory} says of no document that it is relevant.")
    return found


def _pairs(directory: Path, files: Sequence[Path]) -> PairsData:
    import datasets

    table = read_table(files)
    needed = ["sentence1", "sentence2", "score"]
    if not set(needed) <= set(table.column_names):
        raise DatasetError(
            f"data of {directory} has the columns {table.column_names}; pairs have {needed}. {_LAYOUT}"
        )
    pairs = datasets.Dataset(table.select(needed).replace_schema_metadata())
    return PairsData(directory.resolve().name, _digest(directory, files), pairs)


def _digest(directory: Path, files: Sequence[Path]) -> str:
    digest = xxhash.xxh3_128()
    for path in files:
        digest.update(str(path.relative_to(directory)).encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
