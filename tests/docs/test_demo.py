import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.docs.test_readme import FAKE_ENGINE
from tests.mini.paths import CHECKPOINT


@pytest.mark.engine
def test_the_demo_finds_the_pages_that_were_meant(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "polyvec", "demo", str(CHECKPOINT)),
            *("--out", tmp_path / "d", "--port", "0", "--no-stay"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "leaked" not in done.stderr
    blocks = done.stdout.split("\n\n")
    asked = [block.splitlines() for block in blocks if "MaxSim's rank" in block]
    assert len(asked) == 6
    # A star marks the page that was meant; it stands below the query and the names of the columns.
    first = [lines[2].startswith("  *") for lines in asked]
    assert sum(first) >= 5, done.stdout
    assert f"polyvec serve {tmp_path / 'd' / 'merged'} --playground" in done.stdout
    # It has ended, and with it the playground.
    assert not re.search(r"playground  http", done.stdout)
    with Image.open(tmp_path / "d" / "heatmap.png") as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=picture.width * picture.height)
    assert colours is not None
    assert len(colours) > 500


def test_a_port_that_is_taken_is_said_before_anything_is_merged(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [
                *(sys.executable, "-m", "polyvec", "demo", str(CHECKPOINT)),
                *("--out", tmp_path / "d", "--port", port),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{port} cannot be bound" in done.stderr
    assert not (tmp_path / "d").exists()


def test_a_search_that_breaks_off_is_a_failure(tmp_path: Path) -> None:
    """Where the picture should go, there is a directory already."""
    (tmp_path / "d" / "heatmap.png").mkdir(parents=True)
    script = tmp_path / "demo.py"
    script.write_text(FAKE_ENGINE + "from polyvec.cli import main\nmain()\n", encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, str(script), "demo", str(CHECKPOINT)),
            *("--out", tmp_path / "d", "--port", "0"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1
    assert "heatmap.png" in done.stderr
    assert "playground" not in done.stdout
