import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.paths import GOLDEN_OUTPUTS


@pytest.mark.engine
def test_encode_saves_what_the_python_api_gives(merged_float32: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "polyvec", "encode", "--model", merged_float32 / "retrieval"]
    out = tmp_path / "vectors.jsonl"
    done = subprocess.run(
        [*command, "-", "--image", GOLDEN_OUTPUTS / "image_4.png", "--output", out],
        input="a\nb c\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [record["input"] for record in records[:2]] == ["a", "b c"]
    assert len(records) == 3
    with np.load(GOLDEN_OUTPUTS / "golden.npz") as golden:
        expected = golden["retrieval/image_4/single"]
    assert 1 - float(np.array(records[2]["embedding"]) @ expected) <= 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.jsonl"]
