"""`polyvec compare` as a user meets it, once with real engines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import serving
from tests.benchmarks.quality.corpora import write_pages
from tests.cli.command import Polyvec

ROOT = Path(serving.__file__).parents[1]


@pytest.mark.parametrize(
    ("a", "options", "says"),
    [
        ("nowhere/retrieval", ("--data", "DATA"), "does not exist"),
        ("MODELS", ("--data", "DATA"), "Name one"),
        ("MODELS/code@dimensions=65", ("--data", "DATA"), "from 1 to 64"),
        ("MODELS/code@quick=yes", ("--data", "DATA"), "'quick=yes' is not an option"),
        ("MODELS/code", ("--data", "nowhere"), "nowhere is not a directory"),
        ("MODELS/code", ("--data", "DATA", "--queries", "nowhere.txt"), "holds no images"),
    ],
)
def test_a_mistake_is_one_line_before_an_engine_starts(
    a: str,
    options: tuple[str, ...],
    says: str,
    polyvec: Polyvec,
    merged_float32: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = write_pages(tmp_path / "pages")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def put(text: str) -> str:
        return text.replace("MODELS", str(merged_float32)).replace("DATA", str(data))

    done = polyvec("compare", put(a), put("MODELS/code"), *map(put, options))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("polyvec: ")
    assert says in line
    assert list(here.iterdir()) == []


def test_an_earlier_comparison_is_kept_unless_told_otherwise(
    polyvec: Polyvec, merged_float32: Path, tmp_path: Path
) -> None:
    data, output = write_pages(tmp_path / "pages"), tmp_path / "out"
    output.mkdir()
    (output / "comparison.json").write_text("an afternoon's work")
    model = merged_float32 / "code"
    done = polyvec("compare", model, model, "--data", data, "--output", output)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"polyvec: {output} holds a comparison already. "
        "Pass another --output, or replace it with --overwrite."
    )
    assert (output / "comparison.json").read_text() == "an afternoon's work"


@pytest.mark.engine
def test_bfloat16_is_compared_with_float32_over_real_engines(
    merged_float32: Path, tmp_path: Path
) -> None:
    model = merged_float32 / "retrieval"
    command = [
        sys.executable, "-m", "polyvec", "compare", str(model), f"{model}@dtype=bfloat16,dimensions=64",
        "--data", write_pages(tmp_path / "pages"), "--output", tmp_path / "out",
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
    assert done.stdout.count("embedding with") == 2
    written = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    least = written["cosine"]["percentiles"]["0"]
    # 16 bits are seen, and cost little.
    assert 0.99 < least < 1 - 1e-9
    assert (written["num_documents"], written["num_queries"]) == (5, 5)
    assert -1 <= written["ndcg"]["interval"][0] <= written["ndcg"]["interval"][1] <= 1
    with Image.open(tmp_path / "out" / "comparison.png") as picture:
        assert picture.format == "PNG"
