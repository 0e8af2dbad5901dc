"""The inputs that two specs are compared on: documents, queries and, where there are any, judgments.

    DIR with corpus, queries, qrels     a dataset (`benchmarks.quality.dataset`)
    FILE.jsonl, FILE.parquet, FILE.csv  documents: id, and text, image (a path), or both
    DIR of images                       documents: each file, by its name
    --queries FILE.txt, .jsonl, ...     queries: one a line, or id and text

Knows files; not what is done with the inputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from benchmarks.quality.errors import DatasetError
from benchmarks.quality.inputs import Pair
from benchmarks.quality.reading import Relevant, RetrievalData, inputs_of, read_dataset, read_table

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Texts and pages with their ids, decoded when they are asked for.

    Attributes:
        table: `id`, and `text`, `image` or both.
    """

    table: "Dataset"

    @property
    def ids(self) -> list[str]:
        """In order."""
        return list(self.table["id"])

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Pair]:
        for row in self.table:
            image = row.get("image")
            title = row.get("title") or ""
            text = row.get("text")
            # As mteb joins them.
            joined = None if text is None else f"{title} {text}".strip()
            yield joined, image if isinstance(image, Image.Image) else None


@dataclass(frozen=True, slots=True)
class Data:
    """What is compared on.

    Attributes:
        name: of the file or directory.
        documents: at least one.
        queries: at least one.
        relevant: judgments; None where there are none, so that A's rankings are the reference.
    """

    name: str
    documents: Inputs
    queries: Inputs
    relevant: Relevant | None


def read_data(path: Path, queries: Path | None) -> Data:
    """Read the inputs of a comparison.

    Args:
        path: a dataset, or documents.
        queries: of documents; None for a dataset, which has its own.

    Raises:
        DatasetError: something is missing or cannot be read.
    """
    if queries is None:
        dataset = read_dataset(path)
        if not isinstance(dataset, RetrievalData):
            raise DatasetError(
                f"{path} holds pairs; a comparison needs documents and queries. "
                "Measure pairs with `polyvec bench quality --task-dir`."
            )
        judged = [at for at, id_ in enumerate(dataset.queries["id"]) if id_ in dataset.relevant]
        return Data(
            dataset.name,
            Inputs(dataset.corpus),
            Inputs(dataset.queries.select(judged)),
            dataset.relevant,
        )
    return Data(path.name, Inputs(_documents(path)), Inputs(_queries(queries)), None)


def _documents(path: Path) -> "Dataset":
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _IMAGES)
        if not files:
            raise DatasetError(
                f"{path} holds no images. Give a directory of images, or a file of documents (JSONL, parquet, "
                "CSV) with id and text or image."
            )
        names = [file.relative_to(path).as_posix() for file in files]
        return inputs_of(_arrow({"id": names, "image": names}), "corpus", path)
    return inputs_of(_numbered(_read(path), "d"), "corpus", path.parent)


def _queries(path: Path) -> "Dataset":
    if path.suffix == ".txt" and path.is_file():
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        table = _arrow({"text": [line for line in lines if line]})
    else:
        table = _read(path)
    return inputs_of(_numbered(table, "q"), "queries", path.parent)


def _read(path: Path) -> "pa.Table":
    if not path.is_file():
        raise DatasetError(f"{path} is not a file. Give JSONL, parquet, CSV or TSV.")
    return read_table([path])


def _numbered(table: "pa.Table", letter: str) -> "pa.Table":
    """With an id where none is given."""
    import pyarrow as pa

    if {"id", "_id", "corpus-id", "query-id"} & set(table.column_names):
        return table
    return table.append_column("id", pa.array([f"{letter}{at}" for at in range(len(table))]))


def _arrow(columns: dict[str, list[str]]) -> "pa.Table":
    import pyarrow as pa

    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
