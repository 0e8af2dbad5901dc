import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from serving.batch.files import IMAGE_SUFFIXES
from serving.batch.rows import Pdf, Rejected, Row
from serving.errors import SourceError
from serving.images import FORMATS
from serving.inputs import PageImage, Text
from tests.batch.sources import (
    csv_bytes,
    ids,
    one_each,
    planned,
    read,
    read_source,
    reasons,
    write_jsonl,
)
from tests.http.documents import picture_pdf


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A directory of images and PDFs, some of them further down."""
    root = tmp_path / "pages"
    for name in ("b.png", "a/2.JPG", "a/1.png", "c d.webp"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image_format = {"JPG": "JPEG"}.get(name[-3:], name.rsplit(".", 1)[1])
        Image.new("RGB", (4, 4)).save(root / name, image_format)
    (root / "a" / "3.pdf").write_bytes(picture_pdf([(1, 2, 3)]))
    return root


def test_images_and_pdfs_are_rows_in_the_order_of_their_names(pages: Path) -> None:
    expected = [
        Row("a/1.png", "a/1.png", PageImage(pages / "a" / "1.png")),
        Row("a/2.JPG", "a/2.JPG", PageImage(pages / "a" / "2.JPG")),
        Row("a/3.pdf", "a/3.pdf", Pdf(pages / "a" / "3.pdf")),
        Row("b.png", "b.png", PageImage(pages / "b.png")),
        Row("c d.webp", "c d.webp", PageImage(pages / "c d.webp")),
    ]
    for rows_per_file in (1, 2, 5, 100):
        plan = planned(pages, rows_per_file=rows_per_file)
        assert read(plan, seed=3) == expected
        assert [len(chunk.rows) for chunk in one_each(plan).values()][:-1] == [rows_per_file] * (
            plan.num_chunks - 1
        )


def test_one_image_or_pdf_is_a_source(pages: Path) -> None:
    assert ids(read_source(pages / "b.png")) == ["b.png"]
    assert ids(read_source(pages / "a" / "3.pdf")) == ["3.pdf"]


def test_every_suffix_of_an_image_is_a_format_that_is_decoded() -> None:
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in IMAGE_SUFFIXES} == set(FORMATS)


def test_a_file_of_another_kind_is_rejected_and_not_lost(pages: Path) -> None:
    for name in ("notes.docx", "a/Makefile", "table.json", "x.tar.gz", "y.parquet.gz", "z.svg"):
        (pages / name).write_bytes(b"?")
    found = reasons(read_source(pages))
    assert list(found) == [
        "a/Makefile", "notes.docx", "table.json", "x.tar.gz", "y.parquet.gz", "z.svg"
    ]  # fmt: skip
    assert found["notes.docx"].startswith("A .docx file is not read. What is read: JSON Lines")
    assert "no suffix" in found["a/Makefile"]


def test_what_is_about_a_directory_is_left_out(pages: Path) -> None:
    before = ids(read_source(pages))
    plan = planned(pages)
    for name in (".gitattributes", "README.md", "LICENSE", "a/_SUCCESS", "Thumbs.db"):
        (pages / name).write_bytes(b"?")
    (pages / ".cache").mkdir()
    shutil.copy(pages / "b.png", pages / ".cache")
    assert ids(read_source(pages)) == before
    assert planned(pages).fingerprint == plan.fingerprint


def test_links_are_followed_and_do_not_go_round_in_circles(pages: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(pages / "b.png", tmp_path / "elsewhere" / "x.png")
    (pages / "linked").symlink_to(tmp_path / "elsewhere")
    (pages / "a" / "back").symlink_to(pages)
    (pages / "self").symlink_to(pages / "self")
    (pages / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (pages / "one.png").symlink_to(pages / "b.png")
    os.mkfifo(pages / "pipe.png")
    rows = read_source(pages)
    assert ids(rows) == [
        "a/1.png", "a/2.JPG", "a/3.pdf", "b.png", "c d.webp", "gone.png", "linked/x.png",
        "one.png", "pipe.png", "self",
    ]  # fmt: skip
    found = reasons(rows)
    assert list(found) == ["gone.png", "pipe.png", "self"]
    assert "No such file" in found["gone.png"]
    assert "regular file" in found["pipe.png"]


def test_names_that_are_not_utf8_have_an_id_that_is(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes(b"")
    (tmp_path / "line\nfeed.png").write_bytes(b"")
    first, second = read_source(tmp_path)
    assert first == Row("caf\\udce9.png", "caf\\udce9.png", PageImage(tmp_path / name))
    assert second.id == "line\nfeed.png"
    data = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    write_jsonl(data, [{"text": "x"}])
    assert ids(read_source(data)) == ["caf\\udce9.jsonl:1"]


def test_data_files_and_pages_mix_in_the_order_of_names_and_share_chunks(pages: Path) -> None:
    write_jsonl(pages / "a" / "4.jsonl", ({"text": str(n)} for n in range(10)))
    (pages / "b.csv").write_bytes(csv_bytes([["text"], ["x"], ["y"]]))
    (pages / "a" / "5.jsonl").write_bytes(b"")
    (pages / "a" / "6.csv").write_bytes(b"")
    expected = [
        "a/1.png", "a/2.JPG", "a/3.pdf", *(f"a/4.jsonl:{n}" for n in range(1, 11)),
        "b.csv:2", "b.csv:3", "b.png", "c d.webp",
    ]  # fmt: skip
    for rows_per_file in (1, 4, 7, 100):
        plan = planned(pages, rows_per_file=rows_per_file)
        assert ids(read(plan, seed=5)) == expected
        lengths = [len(chunk.rows) for chunk in one_each(plan).values()]
        assert set(lengths[:-1]) <= {rows_per_file}


def test_paths_in_a_data_file_begin_where_it_is(pages: Path) -> None:
    write_jsonl(
        pages / "a" / "docs.jsonl",
        [{"image": "1.png"}, {"pdf": "../x.pdf"}, {"image": str(pages / "b.png")}, {"text": "t"}],
    )
    rows = read_source(pages / "a" / "docs.jsonl")
    assert [row.content for row in rows if isinstance(row, Row)] == [
        PageImage(pages / "a" / "1.png"),
        Pdf(pages / "a" / ".." / "x.pdf"),
        PageImage(pages / "b.png"),
        Text("t"),
    ]


def test_a_source_may_be_given_relative_to_where_the_job_begins(
    pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pages)
    plan = planned(Path("a"))
    monkeypatch.chdir("/")
    row = read(plan)[0]
    assert isinstance(row, Row)
    assert row.content == PageImage(pages / "a" / "1.png")


@pytest.mark.parametrize(
    "url", ["s3://bucket/docs.jsonl", "hf://datasets/a/b", "https://example.com/a.csv"]
)
def test_urls_are_refused_by_name(url: str) -> None:
    with pytest.raises(SourceError, match=r"is a URL.*download it"):
        planned(Path(url))


def test_sources_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing\.jsonl does not exist"):
        planned(tmp_path / "nothing.jsonl")
    with pytest.raises(SourceError, match="has no rows"):
        planned(tmp_path)
    (tmp_path / "docs.json").write_bytes(b"[]")
    with pytest.raises(SourceError, match=r"docs\.json: A \.json file is not read"):
        planned(tmp_path / "docs.json")
    with pytest.raises(SourceError, match=r"Nothing in .* docs\.json: A \.json file is not read"):
        planned(tmp_path)
    with pytest.raises(SourceError, match="has no split 'train'"):
        planned(tmp_path, split="train")
    (tmp_path / "docs.jsonl").write_bytes(b"\n \n")
    with pytest.raises(SourceError, match="has no rows"):
        planned(tmp_path / "docs.jsonl")


def test_the_fingerprint_changes_with_whatever_changes_rows_and_with_nothing_else(
    pages: Path,
) -> None:
    docs = write_jsonl(pages / "docs.jsonl", [{"text": "x"}])
    plan = planned(pages)
    assert planned(pages) == plan
    assert planned(pages, dim=128, engines=2).fingerprint == plan.fingerprint
    moved = pages.parent / "moved"
    shutil.copytree(pages, moved)
    assert planned(moved).fingerprint == plan.fingerprint
    others = [
        planned(pages, rows_per_file=7),
        planned(pages, id_column="docid"),
        planned(pages, text_column="body"),
        planned(pages, image_column="scan"),
        planned(pages, pdf_column="file"),
    ]
    os.utime(docs, (1, 1))
    others.append(planned(pages))
    docs.rename(pages / "data.jsonl")
    others.append(planned(pages))
    (pages / "b.png").unlink()
    others.append(planned(pages))
    fingerprints = {other.fingerprint for other in others} | {plan.fingerprint}
    assert len(fingerprints) == len(others) + 1


def test_rejected_files_are_rows_of_their_chunk(pages: Path) -> None:
    (pages / "b.txt").write_bytes(b"?")
    rows = read_source(pages, rows_per_file=2)
    assert [type(row) for row in rows] == [Row, Row, Row, Row, Rejected, Row]
