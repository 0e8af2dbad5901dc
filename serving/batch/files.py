"""Files that are one row each: images and PDFs, by their suffix; a file of any other kind is a rejected row.

It opens none of them.
"""

from collections.abc import Iterator
from pathlib import Path

from serving.batch.data_file import COMPRESSIONS
from serving.batch.pieces import Files
from serving.batch.rows import Content, Pdf, Rejected, Row
from serving.batch.walk import spelled
from serving.inputs import PageImage

IMAGE_SUFFIXES = frozenset(
    {
        ".apng",
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".png",
        ".tif",
        ".tiff",
        ".webp",
    }
)
PDF_SUFFIX = ".pdf"
READ = (
    "JSON Lines (.jsonl, .ndjson), CSV (.csv, .tsv), both also as .gz or .zst, parquet (.parquet), "
    "images and PDFs"
)


def read_files(piece: Files) -> Iterator[Row | Rejected]:
    """A row for each file; its id is its name."""
    for name in piece.names:
        id_ = spelled(name)
        content = _content(piece.root / name)
        if content is None:
            yield Rejected(id_, id_, None, f"{_what(name)}. What is read: {READ}.")
        else:
            yield Row(id_, id_, content)


def _content(path: Path) -> Content | None:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return PageImage(path)
    return Pdf(path) if suffix == PDF_SUFFIX else None


def _what(name: str) -> str:
    suffix = spelled(Path(name).suffix.lower())
    if not suffix:
        return "The file's name has no suffix that says what it is"
    if suffix in COMPRESSIONS:
        return f"A {suffix} file of this kind is not read"
    return f"A {suffix} file is not read"
