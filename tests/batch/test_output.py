"""Files of the output: columns, values, names that appear when a file is whole."""

import itertools
import json
import typing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pooling import Int8Vectors, dequantise, unpack
from serving.batch.output import Output, write_whole
from serving.batch.part import Embedded, PartWriter, read_tally
from serving.batch.rows import Rejected
from serving.batch.schema import CHUNK_KEY, METADATA_KEY, VectorFormat
from serving.batch.tally import Tally
from serving.errors import OutputError
from serving.settings.batch import VectorDtype

DIM = 20
FORMATS = [
    VectorFormat(dtype, multi, DIM)
    for dtype, multi in itertools.product(typing.get_args(VectorDtype), (False, True))
]


@pytest.fixture
def output(tmp_path: Path) -> Output:
    output = Output(tmp_path / "out")
    output.rejects.mkdir(parents=True)
    output.state.mkdir()
    return output


def embedded(format_: VectorFormat, count: int) -> list[Embedded]:
    torch.manual_seed(0)
    rows = []
    for n in range(count):
        shape = (n % 4 + 1, DIM) if format_.multi else (DIM,)
        vector = torch.nn.functional.normalize(torch.randn(shape), dim=-1)
        rows.append(
            Embedded(f"id-{n}", "page" if n % 2 else "text", n if n % 2 else None, vector, n)
        )
    return rows


def restored(table: pa.Table, format_: VectorFormat, row: int) -> np.ndarray:
    """The vectors behind one row, float32 [vector, dim]; of bits, their signs."""
    values = np.array(table["embedding"][row].as_py())
    values = values.reshape(-1, format_.width)
    match format_.dtype:
        case "float32" | "float16":
            return values.astype(np.float32)
        case "int8":
            scales = np.array(table["scale"][row].as_py(), dtype=np.float32).reshape(-1)
            return dequantise(
                Int8Vectors(torch.tensor(values, dtype=torch.int8), torch.tensor(scales))
            ).numpy()
        case "binary":
            return unpack(torch.tensor(values, dtype=torch.int8), DIM).numpy()
        case "ubinary":
            return unpack(torch.tensor(values, dtype=torch.uint8), DIM).numpy()


@pytest.mark.parametrize(
    "format_", FORMATS, ids=lambda f: f"{f.dtype}-{'multi' if f.multi else 'single'}"
)
def test_vectors_are_read_as_they_were_written(output: Output, format_: VectorFormat) -> None:
    rows = embedded(format_, 9)
    writer = PartWriter(output, 3, format_, b"{}")
    writer.add(rows[:5])
    writer.add(rows[5:])
    writer.finish(9)
    table = pq.read_table(output.part(3))
    assert table["embedding"].type == format_.embedding_type
    assert table.column_names == [
        "id", "kind", "page", "embedding", *(["scale"] if format_.has_scale else []), "num_tokens",
    ]  # fmt: skip
    assert table["id"].to_pylist() == [row.id for row in rows]
    assert table["kind"].to_pylist() == [row.kind for row in rows]
    assert table["page"].to_pylist() == [row.page for row in rows]
    assert table["num_tokens"].to_pylist() == [row.num_tokens for row in rows]
    for position, row in enumerate(rows):
        wanted = row.vector.reshape(-1, DIM).numpy()
        got = restored(table, format_, position)
        assert got.shape == wanted.shape
        if format_.dtype in ("binary", "ubinary"):
            assert (got == np.where(wanted > 0, 1, -1)).all()
        else:
            bound = {"float32": 0.0, "float16": 1e-3, "int8": 5e-3}[format_.dtype]
            assert np.abs(got - wanted).max() <= bound


def test_row_groups_are_bounded_and_vectors_not_compressed(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.batch.part._ROW_GROUP_ROWS", 4)
    format_ = VectorFormat("float32", False, DIM)
    writer = PartWriter(output, 0, format_, b"{}")
    writer.add(embedded(format_, 10))
    writer.finish(10)
    metadata = pq.read_metadata(output.part(0))
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [4, 4, 2]
    columns = [metadata.row_group(0).column(n) for n in range(metadata.num_columns)]
    found = {one.path_in_schema.split(".")[0]: one for one in columns}
    assert found["embedding"].compression == "UNCOMPRESSED"
    assert not found["embedding"].is_stats_set
    assert "RLE_DICTIONARY" not in found["embedding"].encodings
    assert found["id"].compression == "ZSTD"
    assert found["id"].is_stats_set


def test_a_file_says_what_made_it_and_what_became_of_its_rows(output: Output) -> None:
    format_ = VectorFormat("float32", False, DIM)
    writer = PartWriter(output, 0, format_, b'{"format":1}')
    writer.add([*embedded(format_, 3), Rejected("bad", "docs.jsonl:4", None, "It is bad.")])
    writer.finish(4)
    metadata = pq.read_schema(output.part(0)).metadata
    assert json.loads(metadata[METADATA_KEY]) == {"format": 1}
    assert CHUNK_KEY in pq.read_metadata(output.part(0)).metadata
    assert read_tally(output.part(0)) == Tally(rows=4, embedded=3, pages=1, rejected=1, tokens=3)
    (line,) = output.rejected(0).read_text().splitlines()
    assert json.loads(line) == {
        "id": "bad", "where": "docs.jsonl:4", "page": None, "reason": "It is bad.",
    }  # fmt: skip


def test_a_chunk_whose_rows_are_all_rejected_is_a_file_without_rows(output: Output) -> None:
    writer = PartWriter(output, 0, VectorFormat("int8", True, DIM), b"{}")
    writer.add([Rejected("\udcff.png", "\udcff.png", None, "no")])
    writer.finish(1)
    assert pq.read_table(output.part(0)).num_rows == 0
    assert json.loads(output.rejected(0).read_text())["id"] == r"\udcff.png"


def test_a_chunk_done_again_forgets_what_was_rejected_before(output: Output) -> None:
    output.rejected(0).write_text("{}\n")
    format_ = VectorFormat("float32", False, DIM)
    writer = PartWriter(output, 0, format_, b"{}")
    writer.add(embedded(format_, 1))
    assert output.rejected(0).exists()
    writer.finish(1)
    assert not output.rejected(0).exists()


def test_nothing_has_a_name_before_it_is_whole(output: Output) -> None:
    format_ = VectorFormat("float32", False, DIM)
    writer = PartWriter(output, 0, format_, b"{}")
    writer.add(embedded(format_, 3))
    assert list(output.root.glob("part-*")) == []
    assert len(output.leftovers()) == 1
    writer.discard()
    assert output.leftovers() == []


def test_a_damaged_file_is_refused_by_name(output: Output) -> None:
    output.part(0).write_bytes(b"PAR1 and no more")
    with pytest.raises(OutputError, match=r"part-00000000\.parquet is damaged.*Remove it"):
        read_tally(output.part(0))


def test_a_small_file_that_cannot_be_written_keeps_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_whole(path, b"old")
    path.with_name("other").mkdir()
    with pytest.raises(TypeError):
        write_whole(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["other", "run.json"]
