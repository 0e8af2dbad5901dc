"""The pages that the playground brings along: read and checked once, when the server starts.

    corpus.json   {"pages": [{"file", "title", "queries"}, ...], "queries": [...]}
    *.png         each file that it names

Knows the files; not who shows them, nor what is searched for.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.errors import SettingsError

CORPUS_DIRECTORY = Path(__file__).with_name("corpus")
INDEX_NAME = "corpus.json"

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

Words = Annotated[str, Field(min_length=1, max_length=300)]
# Becomes a part of a path, and of a URL.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*\.png$", max_length=100)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class CorpusPage(_Strict):
    """One page."""

    file: FileName
    """Its PNG, beside the index."""

    title: Words
    """What it is, for people."""

    queries: tuple[Words, ...]
    """What it answers; may be empty."""


class CorpusIndex(_Strict):
    """All pages, and what may be asked of them."""

    pages: Annotated[tuple[CorpusPage, ...], Field(min_length=1)]
    """In the order they are embedded in."""

    queries: Annotated[tuple[Words, ...], Field(min_length=1)]
    """Examples that the page offers."""


def read_corpus(directory: Path = CORPUS_DIRECTORY) -> tuple[CorpusIndex, dict[str, bytes]]:
    """The index of `directory`, and the bytes of every file that it names.

    Raises:
        SettingsError: the index or a picture is missing or damaged, or a file is named twice; says which.
    """
    path = directory / INDEX_NAME
    try:
        index = CorpusIndex.model_validate_json(_read(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the whole file"
        raise _broken(f"{INDEX_NAME} is not a corpus: {field}: {first['msg']}") from error
    files: dict[str, bytes] = {}
    for page in index.pages:
        if page.file in files:
            raise _broken(f"{INDEX_NAME} names {page.file} twice, expected every file once")
        files[page.file] = _read(directory / page.file)
        if not files[page.file].startswith(_PNG_MAGIC):
            raise _broken(f"{page.file} is not a PNG, as its first bytes say")
    return index, files


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _broken(f"{path.name} cannot be read ({error.strerror})") from error


def _broken(what: str) -> SettingsError:
    return SettingsError(
        f"The playground's corpus is broken: {what}. Install polyvec again, or serve without --playground."
    )
