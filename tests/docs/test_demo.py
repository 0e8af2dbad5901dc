import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import GOLDEN_CHECKPOINT


@pytest.mark.engine
def test_the_demo_ends_with_a_table_and_a_picture(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "polyvec", "demo", str(GOLDEN_CHECKPOINT), "--out", tmp_path / "d"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for line in ("MaxSim of multi-vectors", "Hindi", "page: invoice", "picture"):
        assert line in done.stdout
    assert (tmp_path / "d" / "similarity.png").stat().st_size > 10_000
