"""`polyvec embed`: what it refuses at once, what it prints, and the real engine behind it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import serving
from polyvec.cli_embed import format_summary
from serving.batch.summary import Summary
from tests.batch.corpus import texts, write_jsonl
from tests.cli.command import Polyvec
from tests.paths import GOLDEN_OUTPUTS

ROOT = Path(serving.__file__).parents[1]


def test_what_cannot_succeed_is_one_line_and_starts_nothing(
    tmp_path: Path, merged_float32: Path, polyvec: Polyvec
) -> None:
    source = write_jsonl(tmp_path / "docs.jsonl", texts(3))
    where = ["--model", merged_float32 / "retrieval", "--output", tmp_path / "out"]
    for arguments, said in [
        ([tmp_path / "none.jsonl", *where], "none.jsonl"),
        ([source, *where, "--dim", "33"], "Invalid dim: 33"),
        ([source, *where, "--task", "code"], "holds the tasks ['retrieval']"),
        ([source, *where, "--vector-dtype", "int4"], "vector_dtype"),
        ([source, *where[:2], "--output", "hf://some/where"], "hf://some/where is a URL"),
    ]:
        done = polyvec("embed", *arguments)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("polyvec: ")
        assert said in line
    assert not (tmp_path / "out").exists()


def test_help_names_every_group_of_options(polyvec: Polyvec) -> None:
    done = polyvec("embed", "--help")
    assert done.returncode == 0
    for said in (
        "--rows-per-file",
        "--pdf-dpi",
        "--dtype",
        "Job",
        "Documents",
    ):
        assert said in done.stdout


def summary(**counts: int) -> Summary:
    every = {
        "num_files": 2, "rows": 1200, "embedded": 1300, "pages": 110, "rejected": 0, "tokens": 99000,
        "resumed_rows": 0, "new_rows": 1200, "new_tokens": 99000,
    }  # fmt: skip
    return Summary(
        output=Path("out"), rejects=Path("out/_rejected"), seconds=60.0, **(every | counts)
    )


def test_a_summary_says_what_was_made_and_where_the_rest_is() -> None:
    assert format_summary(summary(rejected=3)).splitlines() == [
        "1,200 rows in 60.0 s (20.0 rows/s, 1,650 tokens/s)",
        "  1,300 embeddings in 2 files in out, 110 of them pages; 99,000 tokens",
        "  3 rejected, with reasons in out/_rejected",
    ]
    resumed = format_summary(summary(resumed_rows=600, new_rows=600, new_tokens=6000))
    assert resumed.startswith("600 rows in 60.0 s (10.0 rows/s, 100 tokens/s), after 600 that were")
    finished = format_summary(summary(resumed_rows=1200, new_rows=0, new_tokens=0))
    assert finished.startswith("out was finished already: 1,200 rows")


@pytest.mark.engine
def test_vectors_of_a_job_are_those_of_the_model(merged_float32: Path, tmp_path: Path) -> None:
    inputs = json.loads((GOLDEN_OUTPUTS / "inputs.json").read_text(encoding="utf-8"))
    rows: list[dict[str, object]] = [
        {"id": f"text_{n}", "text": text} for n, text in enumerate(inputs["texts"])
    ]
    rows += [
        {"id": Path(name).stem, "image": str(GOLDEN_OUTPUTS / name)} for name in inputs["images"]
    ]
    source = write_jsonl(tmp_path / "docs.jsonl", rows)
    command = [
        sys.executable, "-m", "polyvec", "embed", source, "--model", merged_float32, "--task", "retrieval",
        "--output", tmp_path / "out", "--rows-per-file", "4", "--prompt", "passage",
    ]  # fmt: skip
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "out", columns=["id", "embedding"])
    got = dict(zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True))
    assert got.keys() == {row["id"] for row in rows}
    with np.load(GOLDEN_OUTPUTS / "golden.npz") as golden:
        for id_, vector in got.items():
            name = id_ if id_.startswith("image") else f"passage/{id_}"
            assert 1 - float(np.array(vector) @ golden[f"retrieval/{name}/single"]) <= 1e-5
