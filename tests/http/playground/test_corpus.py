"""The pages that come with the playground, and how a broken set of them is refused."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from serving.errors import SettingsError
from serving.http.playground.corpus import INDEX_NAME, read_corpus
from tests.http.playground.draw_corpus import PAGES, draw_corpus


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    draw_corpus(tmp_path)
    return tmp_path


def rewrite(directory: Path, **changes: Any) -> None:
    path = directory / INDEX_NAME
    document = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(document), encoding="utf-8")


def test_the_corpus_of_the_package_is_sound_and_can_be_asked_for() -> None:
    index, files = read_corpus()
    assert len(index.pages) == len(files) >= 6
    assert index.queries
    for body in files.values():
        assert Image.open(io.BytesIO(body)).size == (448, 448)


def test_a_drawn_corpus_is_read_as_it_was_written(directory: Path) -> None:
    index, files = read_corpus(directory)
    assert [page.file for page in index.pages] == list(PAGES) == list(files)
    assert index.pages[0].title == "Invoice for office furniture"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pages": []}, "pages: "),
        ({"queries": []}, "queries: "),
        ({"extra": 1}, "extra: "),
        ({"pages": [{"file": "../keys.png", "title": "a", "queries": []}]}, "pages.0.file: "),
        ({"pages": [{"file": "a/b.png", "title": "a", "queries": []}]}, "pages.0.file: "),
        ({"pages": [{"file": "page-000.svg", "title": "a", "queries": []}]}, "pages.0.file: "),
        ({"pages": [{"file": "page-000.png", "title": "", "queries": []}]}, "pages.0.title: "),
        ({"pages": [{"file": "page-000.png", "title": "a"}]}, "pages.0.queries: "),
        ({"pages": [{"file": "page-099.png", "title": "a", "queries": []}]}, "cannot be read"),
        ({"pages": [{"file": "page-000.png", "title": "a", "queries": []}] * 2}, "twice"),
    ],
)
def test_a_broken_index_is_refused_by_what_is_wrong(
    directory: Path, changes: dict[str, Any], said: str
) -> None:
    rewrite(directory, **changes)
    with pytest.raises(SettingsError, match="playground's corpus is broken") as caught:
        read_corpus(directory)
    assert said in str(caught.value)


def test_a_missing_index_and_a_file_that_is_no_picture_are_refused(directory: Path) -> None:
    (directory / "page-001.png").write_bytes(b"GIF89a")
    with pytest.raises(SettingsError, match=r"page-001\.png is not a PNG"):
        read_corpus(directory)
    (directory / INDEX_NAME).unlink()
    with pytest.raises(SettingsError, match=r"corpus\.json cannot be read"):
        read_corpus(directory)
