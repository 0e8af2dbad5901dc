from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.batch.rows import Row
from serving.errors import SourceError
from serving.inputs import Text
from tests.batch.sources import (
    csv_bytes,
    ids,
    planned,
    read,
    read_source,
    reasons,
    texts_of,
)

TEXTS = st.text(st.sampled_from('ab",;\n\r\u2028\u0085\x0c\t é漢😀'), min_size=1, max_size=12)


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=60),
    line_end=st.sampled_from(["\n", "\r\n"]),
    ended=st.booleans(),
    bom=st.booleans(),
    blanks=st.booleans(),
    rows_per_file=st.integers(1, 25),
    seed=st.integers(0, 9),
)
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_records_come_back_in_order_with_their_lines_however_sections_are_read(
    tmp_path: Path, texts: list[str], line_end: str, ended: bool, bom: bool, blanks: bool,
    rows_per_file: int, seed: int,
) -> None:  # fmt: skip
    data, places = b"", []
    for record in [["text", "note"], *([text, "n"] for text in texts)]:
        if blanks and len(data) % 3 == 0:
            data += line_end.encode()
        number = data.count(b"\n") + 1
        places.append(f"docs.csv:{number}")
        data += csv_bytes([record], line_end=line_end)
    if not ended:
        data = data.removesuffix(line_end.encode())
    (tmp_path / "docs.csv").write_bytes(b"\xef\xbb\xbf" * bom + data)
    plan = planned(tmp_path / "docs.csv", rows_per_file=rows_per_file)
    assert read(plan, seed=seed) == [
        Row(place, place, Text(text)) for place, text in zip(places[1:], texts, strict=True)
    ]


def test_an_empty_field_is_no_value(tmp_path: Path) -> None:
    source = tmp_path / "docs.csv"
    source.write_text("id,text,image\n1,a,\n2,,b.png\n,c,\n4,,\n5,d,e.png\n", encoding="utf-8")
    rows = read_source(source)
    assert ids(rows) == ["1", "2", "docs.csv:4", "4", "5"]
    assert list(reasons(rows)) == ["docs.csv:5", "docs.csv:6"]
    assert ids(read_source(source, id_column="id")) == ids(rows)
    assert "nothing" in reasons(read_source(source, id_column="id"))["docs.csv:4"]


def test_records_that_break_the_rules_are_rejected_and_reading_goes_on(tmp_path: Path) -> None:
    source = tmp_path / "docs.csv"
    source.write_bytes(
        b"id,text\n"
        b"1,a\n"
        b"2,b,c\n"
        b"3\n"
        b'4,"d"e\n'
        b"5,\xff\n"
        b'6,"\xff\n\n"\n'
        b"7,g\rh\n"
        b"8,NUL\x00\n"
        b'9,"not closed\n'
        b"10,i\n"
    )
    for rows_per_file in (1, 2, 100):
        rows = read_source(source, rows_per_file=rows_per_file)
        found = reasons(rows)
        assert ids(rows) == [
            "1", *(f"docs.csv:{n}" for n in (3, 4, 5, 6, 7, 10)), "8", "docs.csv:12"
        ]  # fmt: skip
        assert found["docs.csv:3"] == "The record has 3 fields; the header has 2."
        assert found["docs.csv:4"] == "The record has 1 fields; the header has 2."
        assert "line 5 cannot" in found["docs.csv:5"]
        assert "UTF-8" in found["docs.csv:6"]
        assert "UTF-8" in found["docs.csv:7"]
        assert "lines 12 to 13" in found["docs.csv:12"]


def test_a_quote_that_is_never_closed_costs_a_bounded_part_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.batch.csv_files.MAX_LINE_BYTES", 100)
    source = tmp_path / "docs.csv"
    lines = [f"{n},text" for n in range(1000)]
    lines[3] = '3,"text'
    source.write_text("id,text\n" + "\n".join(lines), encoding="utf-8")
    rows = read_source(source, rows_per_file=7)
    assert len(reasons(rows)) == 1
    assert "longer than" in reasons(rows)["docs.csv:5"]
    assert ids(rows)[:4] == ["0", "1", "2", "docs.csv:5"]
    assert ids(rows)[4:] == [str(n) for n in range(1000 - len(rows) + 4, 1000)]
    assert len(rows) > 980


def test_a_text_may_be_longer_than_the_library_allows_by_default(tmp_path: Path) -> None:
    source = tmp_path / "docs.csv"
    long = "x\n" * 200_000
    source.write_bytes(csv_bytes([["text"], [long], ["b"]]))
    assert texts_of(read_source(source)) == [long, "b"]


def test_tab_separated_values_are_read(tmp_path: Path) -> None:
    source = tmp_path / "docs.tsv"
    source.write_text("id\ttext\na\tone, two\n", encoding="utf-8")
    assert read_source(source) == [Row("a", "docs.tsv:2", Text("one, two"))]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has no rows"),
        (b"id,text\n", "has no rows"),
        (b"id,text\rA,x\r", "LF or CRLF"),
        (b"id,t\xffxt\nA,x\n", "header cannot be read.*UTF-8"),
        (b'id,"text\nA,x\n', "header cannot be read"),
        (b"id,text,text\nA,x,y\n", "2 columns called 'text'"),
        (b"id;text\nA;x\n", "none of the columns image, pdf, text. Its columns: id;text"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_refused(
    tmp_path: Path, data: bytes, message: str
) -> None:
    source = tmp_path / "docs.csv"
    source.write_bytes(data)
    with pytest.raises(SourceError, match=message) as caught:
        planned(source)
    assert "docs.csv" in str(caught.value)
