"""Ten lines each, as in the README: an output in pandas, Arrow, DuckDB, Qdrant and LanceDB."""

from pathlib import Path

import numpy as np
import pytest

from serving.batch.output import Output
from serving.batch.part import Embedded, PartWriter
from serving.batch.rows import Rejected
from serving.batch.schema import VectorFormat

DIM = 64
NUM_ROWS = 40


@pytest.fixture(scope="module", params=["float32", "float16", "int8", "binary", "ubinary"])
def out(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("out"), VectorFormat(request.param, False, DIM))


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("out"), VectorFormat("float32", False, DIM))


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("out"), VectorFormat("float16", True, DIM))


def write(root: Path, format_: VectorFormat) -> Path:
    import torch

    torch.manual_seed(0)
    output = Output(root)
    output.rejects.mkdir()
    output.state.mkdir()
    output.run_file.write_text("{}")
    for index in range(2):
        writer = PartWriter(output, index, format_, b"{}")
        for n in range(NUM_ROWS // 2):
            shape = (3, DIM) if format_.multi else (DIM,)
            vector = torch.nn.functional.normalize(torch.randn(shape), dim=-1)
            writer.add([Embedded(f"{index}-{n}", "text", None, vector, 5)])
        writer.add([Rejected(f"{index}-bad", "docs.jsonl:1", None, "It is bad.")])
        writer.finish(NUM_ROWS // 2 + 1)
    return output.root


def test_pandas_and_arrow_read_the_directory(out: Path) -> None:
    import pandas as pd
    import pyarrow.dataset as ds

    frame = pd.read_parquet(out)
    assert len(frame) == len(set(frame["id"])) == NUM_ROWS
    vectors = np.stack(frame["embedding"])
    assert vectors.shape[0] == NUM_ROWS
    assert ds.dataset(out).count_rows() == NUM_ROWS


def test_duckdb_reads_the_files_and_computes_with_vectors(out: Path) -> None:
    import duckdb

    found = duckdb.sql(f"SELECT id, embedding FROM read_parquet('{out}/*.parquet') ORDER BY id")
    assert len(found.fetchall()) == NUM_ROWS


def test_duckdb_finds_the_nearest(floats: Path) -> None:
    import duckdb
    import pandas as pd

    frame = pd.read_parquet(floats)
    query = frame["embedding"][7].tolist()
    nearest = duckdb.execute(
        f"""
        SELECT id, array_cosine_similarity(embedding::FLOAT[{DIM}], ?::FLOAT[{DIM}]) AS score
        FROM read_parquet('{floats}/*.parquet') ORDER BY score DESC LIMIT 3
        """,
        [query],
    ).fetchall()
    assert nearest[0][0] == frame["id"][7]


def test_multi_vectors_are_read_as_matrices(multi: Path) -> None:
    import duckdb
    import pandas as pd

    frame = pd.read_parquet(multi)
    assert np.stack(frame["embedding"][0]).shape == (3, DIM)
    assert duckdb.sql(f"SELECT count(*) FROM read_parquet('{multi}/*.parquet')").fetchall() == [
        (NUM_ROWS,)
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_qdrant_takes_the_vectors(floats: Path) -> None:
    import pandas as pd
    from qdrant_client import QdrantClient, models

    frame = pd.read_parquet(floats)
    client = QdrantClient(":memory:")
    size, distance = len(frame["embedding"][0]), models.Distance.COSINE
    client.create_collection("docs", models.VectorParams(size=size, distance=distance))
    client.upload_collection(
        "docs",
        vectors=np.stack(frame["embedding"]),
        payload=frame[["id", "kind"]].to_dict("records"),
    )
    (best,) = client.query_points("docs", query=frame["embedding"][7].tolist(), limit=1).points
    assert best.payload is not None
    assert best.payload["id"] == frame["id"][7]
    client.close()


def test_lancedb_takes_the_files(tmp_path: Path, floats: Path) -> None:
    import lancedb
    import pyarrow.dataset as ds

    rows = ds.dataset(floats)
    table = lancedb.connect(tmp_path / "db").create_table(
        "docs", rows.to_batches(), schema=rows.schema
    )
    query = rows.head(8)["embedding"][7].as_py()
    (best,) = table.search(query, vector_column_name="embedding").limit(1).to_list()
    assert best["id"] == rows.head(8)["id"][7].as_py()
