"""Every block of code in the README runs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import GOLDEN_CHECKPOINT

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [
    line.partition("  #")[0].strip()
    for language, code in BLOCKS
    if language == "bash"
    for line in code.splitlines()
    if line.strip()
]


FAKE_ENGINE = """
import serving.engine.start
from serving.engine.fake import FakeEngine


async def start_engine(directory, settings, *, num_engines):
    return FakeEngine(directory, settings)


serving.engine.start.start_engine = start_engine
serving.engine.start.runs_on_cpu = lambda: True

"""


@pytest.fixture(scope="module")
def newcomers_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the README's relative paths exist, as in a clone."""
    path = tmp_path_factory.mktemp("newcomer")
    golden = path / GOLDEN_CHECKPOINT.relative_to(ROOT)
    golden.parent.mkdir(parents=True)
    golden.symlink_to(GOLDEN_CHECKPOINT)
    return path


def run(command: list[str], directory: Path) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_only_known_kinds_of_blocks_stand_in_the_readme() -> None:
    assert {language for language, _ in BLOCKS} == {"bash", "python", ""}
    assert len(PYTHON) >= 5
    assert {command.split()[0] for command in COMMANDS} == {"make", "polyvec"}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_make_targets_exist(command: str) -> None:
    # Running them here would run this test again; CI runs `make test`, and the demo has its own test.
    done = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.engine
def test_the_commands_run_in_the_order_of_the_readme(newcomers_directory: Path) -> None:
    commands = [shlex.split(c) for c in COMMANDS if c.startswith("polyvec")]
    assert [command[1] for command in commands] == ["merge", "merge", "verify", "verify", "encode"]
    outputs = [run(command, newcomers_directory) for command in commands]
    assert (newcomers_directory / "merged" / "code" / "polyvec.json").is_file()
    assert "a beautiful sunset  [64]" in outputs[-1]


@pytest.mark.engine
@pytest.mark.parametrize("at", range(len(PYTHON)))
def test_a_python_block_runs(at: int, newcomers_directory: Path, merged_bfloat16: Path) -> None:
    merged = newcomers_directory / "merged"
    if not merged.exists():
        merged.symlink_to(merged_bfloat16)
    script = newcomers_directory / f"block_{at}.py"
    # The first block starts real engines; for the others the computable engine stands in, which costs
    # no minute each.
    script.write_text((FAKE_ENGINE if at > 0 else "") + PYTHON[at], encoding="utf-8")
    assert run([sys.executable, script.name], newcomers_directory).strip()
