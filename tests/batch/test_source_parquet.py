from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.batch import parquet
from serving.batch.rows import Pdf, Rejected, Row
from serving.errors import SourceError
from serving.inputs import PageImage, Text
from tests.batch.sources import ids, one_each, planned, read, read_source, reasons, texts_of


def write(path: Path, table: pa.Table, row_groups: Sequence[int]) -> Path:
    with pq.ParquetWriter(path, table.schema) as writer:
        start = 0
        for num_rows in row_groups:
            writer.write_table(table.slice(start, num_rows))
            start += num_rows
    return path


@given(
    files=st.lists(st.lists(st.integers(0, 40), max_size=6), min_size=1, max_size=4),
    rows_per_file=st.integers(1, 25),
    batch_rows=st.sampled_from([1, 7, 1024]),
    seed=st.integers(0, 9),
)
@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_come_back_in_order_whatever_row_groups_they_are_in(
    tmp_path: Path, files: list[list[int]], rows_per_file: int, batch_rows: int, seed: int
) -> None:
    expected = []
    for index, row_groups in enumerate([[1], *files]):
        texts = [f"{index} {n}" for n in range(sum(row_groups))]
        write(tmp_path / f"{index}.parquet", pa.table({"text": texts}), row_groups)
        expected += [
            Row(f"{index}.parquet:{n}", f"{index}.parquet:{n}", Text(text))
            for n, text in enumerate(texts, start=1)
        ]
    for old in range(len(files) + 1, 5):
        (tmp_path / f"{old}.parquet").unlink(missing_ok=True)
    plan = planned(tmp_path, rows_per_file=rows_per_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "_MAX_BATCH_ROWS", batch_rows)
        assert read(plan, seed=seed) == expected
        assert [
            row for _, chunk in sorted(one_each(plan).items()) for row in chunk.rows
        ] == expected
        section = plan.sections[0]
        every_third = range(0, section.num_chunks, 3)
        for chunk in section.chunks(every_third):
            start = chunk.index * rows_per_file
            assert list(chunk.rows) == expected[start : start + rows_per_file]


def test_a_section_is_no_smaller_than_a_row_group_and_begins_with_one(tmp_path: Path) -> None:
    table = pa.table({"text": [str(n) for n in range(1000)]})
    source = write(tmp_path / "docs.parquet", table, [400, 400, 200])
    plan = planned(source, rows_per_file=10)
    assert [section.first_chunk for section in plan.sections] == [0, 40, 80]
    small = write(tmp_path / "small.parquet", table, [10] * 100)
    plan = planned(small, rows_per_file=10)
    assert [section.num_chunks for section in plan.sections] == [16] * 6 + [4]
    uneven = planned(source, rows_per_file=7)
    assert [section.first_chunk for section in uneven.sections] == [0, 58, 115]


def test_columns_of_every_type_are_contents_or_reasons(tmp_path: Path) -> None:
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "id": pa.array([1, 2, 3, 4, 5, 6], pa.uint64()),
            "text": pa.array(["a", None, None, None, "b", None]).dictionary_encode(),
            "image": pa.array(
                [None, {"bytes": b"png", "path": "x.png"}, {"bytes": None, "path": "x.png"},
                 {"bytes": None, "path": None}, {"bytes": None, "path": None}, None], struct,
            ),
            "pdf": pa.array([None, None, None, None, None, b"%PDF"], pa.large_binary()),
            "unrelated": [[1], [2], [3], [4], [5], [6]],
        }
    )  # fmt: skip
    source = write(tmp_path / "docs.parquet", table, [6])
    rows = read_source(source)
    assert rows[:3] == [
        Row("1", "docs.parquet:1", Text("a")),
        Row("2", "docs.parquet:2", PageImage(b"png")),
        Row("3", "docs.parquet:3", PageImage(tmp_path / "x.png")),
    ]
    assert rows[4:] == [
        Row("5", "docs.parquet:5", Text("b")),
        Row("6", "docs.parquet:6", Pdf(b"%PDF")),
    ]
    assert "exactly one" in reasons(rows)["docs.parquet:4"]
    of_another_type = read_source(source, text_column="unrelated")
    assert "must be a str, not list" in reasons(of_another_type)["docs.parquet:4"]


def test_a_value_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    source = write(tmp_path / "docs.parquet", pa.table({"text": texts}), [3])
    rows = read_source(source)
    assert [type(row) for row in rows] == [Row, Rejected, Row]
    assert "cannot be read" in reasons(rows)["docs.parquet:2"]


def test_a_column_may_have_dots_in_its_name(tmp_path: Path) -> None:
    source = write(tmp_path / "docs.parquet", pa.table({"a.b": ["x"], "a": ["y"]}), [1])
    assert texts_of(read_source(source, text_column="a.b")) == ["x"]


def test_a_damaged_row_group_costs_its_rows(tmp_path: Path) -> None:
    table = pa.table({"text": [f"text number {n}" for n in range(300)]})
    source = write(tmp_path / "docs.parquet", table, [100, 100, 100])
    metadata = pq.read_metadata(source)
    column = metadata.row_group(1).column(0)
    data = bytearray(source.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    source.write_bytes(data)
    for rows_per_file in (7, 1000):
        rows = read_source(source, rows_per_file=rows_per_file)
        found = reasons(rows)
        assert list(found) == [f"docs.parquet:{n}" for n in range(101, 201)]
        assert "Row group 1 of docs.parquet cannot be read" in found["docs.parquet:101"]
        assert texts_of(rows[200:]) == [f"text number {n}" for n in range(200, 300)]


def test_a_damaged_file_is_refused_alone_and_costs_one_row_among_others(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"]})
    damaged = write(tmp_path / "b.parquet", table, [2])
    damaged.write_bytes(damaged.read_bytes()[:-6])
    (tmp_path / "c.parquet").write_bytes(b"")
    with pytest.raises(SourceError, match=r"b\.parquet: It cannot be read"):
        planned(damaged)
    with pytest.raises(SourceError, match=r"Nothing in .* can be read. b\.parquet: It cannot"):
        planned(tmp_path)
    write(tmp_path / "a.parquet", table, [2])
    assert ids(read_source(tmp_path)) == ["a.parquet:1", "a.parquet:2", "b.parquet", "c.parquet"]


def test_a_file_without_contents_among_others_costs_its_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", pa.table({"title": ["x", "y"]}), [2])
    with pytest.raises(SourceError, match=r"none of the columns image, pdf, text.*title"):
        planned(tmp_path)
    write(tmp_path / "b.parquet", pa.table({"text": ["x", "y"]}), [2])
    rows = read_source(tmp_path)
    assert list(reasons(rows)) == ["a.parquet:1", "a.parquet:2"]


@pytest.mark.parametrize("name", ["id_column", "text_column", "image_column", "pdf_column"])
def test_a_named_column_that_no_file_has_is_refused(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "docs.parquet", pa.table({"id": ["x"], "text": ["y"]}), [1])
    option = name.replace("_", "-")
    with pytest.raises(SourceError, match=f"'titel', which --{option} names. .*: id, text"):
        planned(source, **{name: "titel"})


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    source = write(tmp_path / "docs.parquet", table, [1])
    with pytest.raises(SourceError, match="2 columns called 'text'"):
        planned(source)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "docs.parquet", pa.table({"text": pa.array([], pa.string())}), [])
    with pytest.raises(SourceError, match="has no rows"):
        planned(source)
