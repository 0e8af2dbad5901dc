"""The command as a process: Ctrl-C, SIGTERM, SIGKILL at any time, and the same command again."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

import serving
from serving.batch.output import Output
from tests.batch.corpus import made, texts, write_jsonl

ROOT = Path(serving.__file__).parents[1]
NUM_ROWS = 2000
LIMIT_S = 240.0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "docs.jsonl", texts(NUM_ROWS))


@contextmanager
def running(
    source: Path, model: Path, output: Path, delay_s: float
) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable, "-m", "tests.batch.running", "--delay-s", str(delay_s), "--",
        str(source), "--model", str(model), "--output", str(output), "--rows-per-file", "50",
    ]  # fmt: skip
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until_parts(process: subprocess.Popen[str], output: Path, num_parts: int) -> None:
    """Wait until a running job has written so many files."""
    deadline = time.monotonic() + LIMIT_S
    while len(list(output.glob("part-*"))) < num_parts:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Those that read and write for a job. Agents of Ray's, which do not, take a minute or two to see that
    they were left alone."""
    found = []
    for one in family(process):
        with suppress(psutil.Error):
            title = " ".join(one.cmdline())
            if title.startswith("ray::") and "Agent" not in title:
                found.append(one)
    assert any("EngineStage" in " ".join(one.cmdline()) for one in found)
    return found


def finish(source: Path, model: Path, output: Path) -> str:
    with running(source, model, output, delay_s=0.0) as process:
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    found = made(output)
    assert found.ids == {f"row-{n}": 1 for n in range(NUM_ROWS)}
    assert not found.rejected
    assert Output(output).leftovers() == []
    return out


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_says_how_to_go_on_and_leaves_nothing_running(
    tmp_path: Path, source: Path, model: Path, number: signal.Signals, status: int
) -> None:
    output = tmp_path / "out"
    with running(source, model, output, delay_s=0.2) as process:
        until_parts(process, output, 3)
        left = family(process)
        process.send_signal(number)
        _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == status
    assert "Run the same command again to go on" in err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(left, timeout=60)
    assert alive == []


def test_a_command_killed_at_random_times_neither_loses_a_row_nor_repeats_one(
    tmp_path: Path, source: Path, model: Path
) -> None:
    output = tmp_path / "out"
    chance = random.Random(5)
    for at in (2, 12, 25):
        with running(source, model, output, delay_s=0.1) as process:
            until_parts(process, output, at)
            time.sleep(chance.uniform(0, 0.3))  # anywhere in a write
            left = workers(process)
            process.kill()
            process.communicate()
        # Nobody writes for a command that is gone.
        _, alive = psutil.wait_procs(left, timeout=60)
        assert alive == []
    assert "that were there" in finish(source, model, output)
    assert "was finished already: 2,000 rows" in finish(source, model, output)
