import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.batch import lines
from serving.batch.rows import Rejected, Row
from serving.errors import SourceError
from serving.inputs import Text
from tests.batch.sources import (
    ids,
    one_each,
    planned,
    read,
    read_source,
    reasons,
    texts_of,
    write_jsonl,
)

# Line separators of Unicode and of nobody, quotes, and what JSON escapes.
TEXTS = st.text(
    st.sampled_from('ab"\\,\n\r\u2028\u2029\u0085\x0b\x0c\x00\t é漢😀\ufeff'), max_size=12
)


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=60),
    blanks=st.lists(st.integers(0, 60), max_size=5),
    ascii_only=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n"]),
    ended=st.booleans(),
    bom=st.booleans(),
    compression=st.sampled_from(["", ".gz", ".zst"]),
    rows_per_file=st.integers(1, 25),
    seed=st.integers(0, 9),
)
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_come_back_in_order_with_their_lines_however_sections_are_read(
    tmp_path: Path, texts: list[str], blanks: list[int], ascii_only: bool, line_end: str,
    ended: bool, bom: bool, compression: str, rows_per_file: int, seed: int,
) -> None:  # fmt: skip
    written = [json.dumps({"text": text}, ensure_ascii=ascii_only) for text in texts]
    for place in blanks:
        written.insert(place, " \t")
    data = line_end.join(written).encode() + (line_end.encode() if ended else b"")
    data = b"\xef\xbb\xbf" * bom + data
    path = tmp_path / f"docs.jsonl{compression}"
    match compression:
        case ".gz":
            data = gzip.compress(data)
        case ".zst":
            data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    numbers = [n for n, line in enumerate(written, start=1) if not line.isspace()]
    plan = planned(path, rows_per_file=rows_per_file)
    places = [f"docs.jsonl{compression}:{n}" for n in numbers]
    assert read(plan, seed=seed) == [
        Row(place, place, Text(text)) for place, text in zip(places, texts, strict=True)
    ]
    assert plan.num_chunks == -(-len(texts) // rows_per_file)


def test_only_the_wanted_chunks_are_read(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "docs.jsonl", ({"text": str(n)} for n in range(100)))
    plan = planned(source, rows_per_file=3)
    rows = read(plan)
    section = plan.sections[1]
    assert section.first_chunk == 16
    assert [chunk.index for chunk in section.chunks({30, 17, 3})] == [17, 30]
    assert [row for _, chunk in sorted(one_each(plan).items()) for row in chunk.rows] == rows


def test_bad_lines_are_rejected_where_they_are(tmp_path: Path) -> None:
    source = tmp_path / "docs.jsonl"
    source.write_bytes(
        b'{"id": "a", "text": "x"}\n'
        b"{broken\n"
        b'["a list"]\n'
        b'{"text": "\xff"}\n'
        b"\x00\n"
        b'{"text": NaN}\n' + b'{"text": ' + b"[" * 5000 + b"]" * 5000 + b"}\n"
        b'{"text": "\\ud800"}\n'
        b'{"text": 1, "text": "the last of two keys"}\n'
        b'{"id": 123456789012345678901234567890, "text": "y"}\n'
        b'{"id": "z", "text": "\\u0000"}'
    )
    rows = read_source(source)
    found = reasons(rows)
    assert sorted(found, key=lambda where: int(where.split(":")[1])) == [
        f"docs.jsonl:{n}" for n in range(2, 9)
    ]
    assert "not JSON" in found["docs.jsonl:2"]
    assert "JSON object, not list" in found["docs.jsonl:3"]
    assert "UTF-8" in found["docs.jsonl:4"]
    assert "depth" in found["docs.jsonl:7"]
    assert ids(rows)[:2] == ["a", "docs.jsonl:2"]
    assert ids(rows)[-3:] == ["docs.jsonl:9", "docs.jsonl:10", "z"]


def test_a_line_that_is_too_long_is_rejected_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr("serving.batch.jsonl.MAX_LINE_BYTES", 100)
    source = tmp_path / "docs.jsonl"
    just = b'{"text": "' + b"y" * 87 + b'"}\n'
    assert len(just) == 100
    for ending in (b"\n", b""):
        source.write_bytes(
            just + b'{"text": "' + b"x" * 1000 + b'"}\n' + just + b'{"text": "' + b"x" * 88 + b'"}'
            + ending
        )  # fmt: skip
        rows = read_source(source, rows_per_file=1)
        assert [type(row) for row in rows][:3] == [Row, Rejected, Row]
        assert ids(rows) == [f"docs.jsonl:{n}" for n in range(1, 5)]
        assert "longer than" in reasons(rows)["docs.jsonl:2"]


def test_a_compressed_file_is_read_from_its_beginning_once(tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(400)]
    data = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "first"}\n')
    # Two members, one after the other, as parallel compressors write them.
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(data[:1000]) + gzip.compress(data[1000:]))
    plan = planned(tmp_path, rows_per_file=10)
    assert len(plan.sections) == 1
    assert texts_of(read(plan)) == ["first", *texts]
    chunks = one_each(plan)
    assert texts_of(chunks[40].rows) == ["text 399"]
    backwards = plan.sections[0].chunks([39])
    assert texts_of(next(backwards).rows) == texts[389:399]


def test_a_truncated_compressed_file_is_refused(tmp_path: Path) -> None:
    data = gzip.compress(b'{"text": "x"}\n' * 1000)
    source = tmp_path / "docs.jsonl.gz"
    source.write_bytes(data[:-20])
    with pytest.raises(SourceError, match="Truncated"):
        planned(source)
    write_jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
    rows = read_source(tmp_path)
    assert ids(rows) == ["a.jsonl:1", "docs.jsonl.gz"]
    assert "Truncated" in reasons(rows)["docs.jsonl.gz"]


def test_a_file_that_changes_after_planning_is_refused_by_name(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "docs.jsonl", [{"text": "x"}] * 10)
    plan = planned(source, rows_per_file=2)
    (section,) = plan.sections
    reading = section.chunks(range(5))
    next(reading)
    write_jsonl(source, [{"text": "x"}] * 9)
    with pytest.raises(SourceError, match=r"docs\.jsonl has changed"):
        next(reading)
    with pytest.raises(SourceError, match=r"docs\.jsonl has changed"):
        list(section.chunks([4]))
    source.unlink()
    with pytest.raises(SourceError, match=r"docs\.jsonl was there"):
        list(section.chunks([4]))


def test_sections_are_small_to_send(tmp_path: Path) -> None:
    import pickle

    source = write_jsonl(tmp_path / "docs.jsonl", ({"text": str(n)} for n in range(10_000)))
    plan = planned(source, rows_per_file=10)
    assert len(plan.sections) == 63
    assert max(len(pickle.dumps(section)) for section in plan.sections) < 1800
