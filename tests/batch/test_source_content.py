import base64
from pathlib import Path

import pytest

from serving.batch.content import Cells, Columns, Place, row_of
from serving.batch.rows import Content, Pdf, Rejected, Row
from serving.inputs import PageImage, Text
from tests.batch.sources import settings

HERE = Path("/corpus")
ENCODED = base64.b64encode(b"data").decode()


def row(
    *, id_: object = None, text: object = None, image: object = None, pdf: object = None,
    **options: object,
) -> Row | Rejected:  # fmt: skip
    columns = Columns.of(settings(**options))
    return row_of(Cells(id_, text, image, pdf), Place("docs.jsonl:3", HERE), columns)


@pytest.mark.parametrize(
    ("value", "id_"),
    [
        ("a", "a"),
        (7, "7"),
        (0, "0"),
        (-(10**30), f"-{10**30}"),
        (" ", " "),
        (None, "docs.jsonl:3"),
        ("", "docs.jsonl:3"),
        (True, "docs.jsonl:3"),
        (1.5, "docs.jsonl:3"),
        (["a"], "docs.jsonl:3"),
    ],
)
def test_an_id_is_a_string_or_an_integer_or_derived(value: object, id_: str) -> None:
    assert row(id_=value, text="x") == Row(id_, "docs.jsonl:3", Text("x"))


@pytest.mark.parametrize(
    ("value", "got"), [(None, "nothing"), ("", "an empty string"), (True, "bool"), (1.5, "float")]
)
def test_a_row_without_the_id_that_was_asked_for_is_rejected(value: object, got: str) -> None:
    assert row(id_=value, text="x", id_column="docid") == Rejected(
        "docs.jsonl:3", "docs.jsonl:3", None,
        f"The id in column 'docid' must be a string or an integer, not {got}.",
    )  # fmt: skip
    assert row(id_=5, text="x", id_column="docid") == Row("5", "docs.jsonl:3", Text("x"))


@pytest.mark.parametrize(
    ("cells", "content"),
    [
        ({"text": ""}, Text("")),
        ({"text": "https://example.com/a.png"}, Text("https://example.com/a.png")),
        ({"image": "a.png"}, PageImage(HERE / "a.png")),
        ({"image": "/b/a.png"}, PageImage(Path("/b/a.png"))),
        ({"image": b""}, PageImage(b"")),
        ({"image": f"data:image/png;base64,{ENCODED}"}, PageImage(b"data")),
        ({"image": {"bytes": b"x", "path": "a.png"}}, PageImage(b"x")),
        ({"image": {"path": "a.png"}}, PageImage(HERE / "a.png")),
        ({"text": "x", "image": {"bytes": None, "path": None}}, Text("x")),
        ({"pdf": "a.pdf"}, Pdf(HERE / "a.pdf")),
        ({"pdf": "/b/a.pdf"}, Pdf(Path("/b/a.pdf"))),
        ({"pdf": b"x"}, Pdf(b"x")),
        ({"pdf": f"data:application/pdf;base64,{ENCODED}"}, Pdf(b"data")),
        ({"pdf": {"bytes": b"x", "path": None}}, Pdf(b"x")),
    ],
)
def test_a_cell_is_a_text_an_image_or_a_pdf(cells: dict[str, object], content: Content) -> None:
    assert row(**cells) == Row("docs.jsonl:3", "docs.jsonl:3", content)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({}, "exactly one of 'text', 'image', 'pdf'; this has none"),
        ({"text": "x", "pdf": "y"}, "this has 'text' and 'pdf'"),
        ({"text": "", "image": "y"}, "this has 'text' and 'image'"),
        ({"text": 5}, "must be a str, not int"),
        ({"text": "\ud800"}, "lone surrogate"),
        ({"image": 5}, "not int"),
        ({"image": ""}, "not 0 characters"),
        ({"image": "https://example.com/a.png"}, "is a URL, and nothing is fetched"),
        ({"image": "gs://bucket/a.png"}, "is a URL, and nothing is fetched"),
        ({"image": "a\0.png"}, "NUL"),
        ({"image": "data:text/plain;base64,eA=="}, "not an image's data URI"),
        ({"image": "data:image/png;base64,?"}, "not valid base64"),
        ({"image": {"bytes": "eA==", "path": None}}, "'bytes' in column 'image' must be bytes"),
        ({"image": {"url": "x"}}, "must have the keys 'bytes' and 'path', not ['url']"),
        ({"image": {}}, "must have the keys"),
        ({"pdf": 5}, "A PDF must be a path, bytes or a data URI, not int"),
        ({"pdf": ""}, "this is empty"),
        ({"pdf": "s3://bucket/a.pdf"}, "is a URL, and nothing is fetched"),
        ({"pdf": "a\0.pdf"}, "NUL"),
        ({"pdf": "data:image/png;base64,eA=="}, "not a PDF's data URI"),
        ({"pdf": "data:application/pdf;base64,?"}, "not valid base64"),
    ],
)
def test_anything_else_is_rejected_with_its_id_and_a_reason(
    cells: dict[str, object], reason: str
) -> None:
    rejected = row(id_="a", **cells)  # type: ignore[arg-type]
    assert isinstance(rejected, Rejected)
    assert (rejected.id, rejected.where, rejected.page) == ("a", "docs.jsonl:3", None)
    assert reason in rejected.reason
