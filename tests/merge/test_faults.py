"""What goes wrong on real machines: kills, full disks, damaged files, two runs at once.

After each: nothing that looks finished, a message that says what to do, and the next run works.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait as futures_wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from merge_tools import (
    MergeInterrupted,
    MergeToolsError,
    OutputExists,
    OutputLocked,
    WriteFailed,
    merge,
    plan_merge,
    resolve_source,
    verify,
)
from merge_tools.plan import MergePlan
from merge_tools.staging import COMMIT_FILE, LOCK_FILE, STAGING_DIRECTORY, Staging
from tests.merge.builders import TASKS
from tests.paths import GOLDEN_CHECKPOINT

REPOSITORY = Path(__file__).parents[2]


def plan(source: Path = GOLDEN_CHECKPOINT) -> MergePlan:
    return plan_merge(resolve_source(source))


def assert_next_run_works(out: Path, source: Path = GOLDEN_CHECKPOINT) -> None:
    merge(plan(source), out)
    assert sorted(path.name for path in out.iterdir()) == sorted(TASKS)
    assert verify(out).passed


# --- kills -------------------------------------------------------------------------------------


def killed(source: Path, out: Path, number: int, delays_s: list[float]) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "tests.merge.killed", str(source), str(out), str(number)]
    result = subprocess.run(
        [*command, *(f"{delay:.4f}" for delay in delays_s)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_after_sigkill_at_any_of_twenty_points_nothing_looks_finished_and_the_next_run_works(
    larger_source: Path, tmp_path: Path
) -> None:
    chance = random.Random(7)
    delays_s = [chance.uniform(0.01, 0.25) for _ in range(20)]
    runs = killed(larger_source, tmp_path / "out", signal.SIGKILL, delays_s)
    assert len(runs) == 20
    for run in runs:
        assert run["whole"], run
        assert run["rerun_code"] in (0, None), run
        assert run["after"] == sorted(TASKS), run
        assert run["after_passed"], run
    num_inside = sum(run["code"] == -signal.SIGKILL for run in runs)
    assert num_inside >= 5, "too few kills fell inside a merge to show anything"


def test_sigterm_leaves_nothing_behind_and_says_so(larger_source: Path, tmp_path: Path) -> None:
    # Where a machine is busy, a merge begins later and takes longer.
    delays_s = [0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.8]
    runs = killed(larger_source, tmp_path / "out", signal.SIGTERM, delays_s)
    assert any(run["code"] == 1 for run in runs)
    for run in runs:
        # Ended by the signal itself: before the merge began, or after it was done.
        assert run["code"] in (0, 1, -signal.SIGTERM), run
        assert run["left"] in ([], [] if run["code"] == 1 else sorted(TASKS)), run
        assert not run["hidden"], run


@pytest.mark.usefixtures("default_signals")
def test_an_interrupt_during_the_merge_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(plan(), tmp_path / "deep" / "out", progress=interrupt)
    assert not (tmp_path / "deep").exists()
    assert_next_run_works(tmp_path / "deep" / "out")


@pytest.mark.usefixtures("default_signals")
def test_sigterm_in_this_process_is_an_error_and_the_handler_is_put_back(tmp_path: Path) -> None:
    def terminate(_done: int, _total: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(MergeInterrupted, match="nothing was left behind"):
        merge(plan(), tmp_path / "out", progress=terminate)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("default_signals")
def test_a_signal_while_the_merge_waits_for_its_threads_does_not_cut_the_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned = []

    def waiting(*args: Any, **kwargs: Any) -> Any:
        # Where `wait` has taken some of the futures' locks: raising here once left them taken.
        os.kill(os.getpid(), signal.SIGTERM)
        result = futures_wait(*args, **kwargs)
        returned.append(result)
        return result

    monkeypatch.setattr("merge_tools.executor.wait", waiting)
    with pytest.raises(MergeInterrupted):
        merge(plan(), tmp_path / "out")
    assert returned
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("default_signals")
def test_sigterm_after_the_merge_is_done_is_not_told_as_a_merge_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Staging.commit
    came = []

    def and_then_terminate(self: Staging, tasks: Sequence[str]) -> None:
        commit(self, tasks)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Staging, "commit", and_then_terminate)
    before = signal.signal(signal.SIGTERM, lambda number, _frame: came.append(number))
    try:
        merge(plan(), tmp_path / "out")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]
    assert verify(tmp_path / "out").passed


class Stop(Exception):  # noqa: N818 - stands for a kill
    """Raised where a test wants a run to end without clearing up."""


@pytest.mark.parametrize("num_renamed", [0, 1, 2, 3])
def test_a_run_killed_between_renames_is_finished_by_the_next(
    num_renamed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    kill_after_renames(out, num_renamed, monkeypatch)
    assert (out / STAGING_DIRECTORY / COMMIT_FILE).exists()
    present = [path.name for path in out.iterdir() if not path.name.startswith(".")]
    assert len(present) == num_renamed
    assert all(verify(out / name).passed for name in present)

    report = merge(plan(), out)
    assert report.was_finished
    assert "cut off" in report.describe()
    assert sorted(path.name for path in out.iterdir()) == sorted(TASKS)
    assert verify(out, source=resolve_source(GOLDEN_CHECKPOINT)).passed


def kill_after_renames(out: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves OUT as a kill between two renames does."""
    real = Path.rename
    seen = 0

    def rename(self: Path, target: Path) -> Path:
        nonlocal seen
        if self.name in TASKS:
            if seen == count:
                raise Stop
            seen += 1
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        if count == len(TASKS):
            # Dies after the last rename, before the staging directory is removed.
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            merge(plan(), out)
        else:
            with pytest.raises(Stop):
                merge(plan(), out)


def test_what_a_killed_run_left_does_not_stop_a_different_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    kill_after_renames(out, 1, monkeypatch)
    different = plan_merge(resolve_source(GOLDEN_CHECKPOINT), dtype="float32")
    with pytest.raises(MergeToolsError, match="already holds a finished checkpoint"):
        merge(different, out)
    assert verify(out).passed
    merge(different, out, overwrite=True)
    assert {report.task for report in verify(out).checkpoints} == set(TASKS)


def contents(out: Path) -> dict[str, object]:
    """Every file with its bytes and every link with its target."""
    return {
        str(path.relative_to(out)): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in out.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def put_directory(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("three years of work")


def put_file(path: Path) -> None:
    path.write_text("three years of work")


def put_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("put", [put_directory, put_file, put_link])
def test_what_came_into_the_way_after_a_kill_is_not_touched(
    put: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    kill_after_renames(out, 0, monkeypatch)
    put(out / "text-matching")
    before = contents(out)
    assert before
    with pytest.raises(OutputExists, match=r"move it away and merge again. The finished work wait"):
        merge(plan(), out)
    assert contents(out) == before
    (out / "text-matching").rename(tmp_path / "elsewhere")
    assert merge(plan(), out).was_finished
    assert verify(out).passed


def test_what_came_into_the_way_during_the_merge_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def intrude(_done: int, _total: int) -> None:
        if not (out / "code").exists():
            put_directory(out / "code")

    with pytest.raises(OutputExists, match="not ours to remove"):
        merge(plan(), out, progress=intrude)
    assert (out / "code" / "thesis.txt").read_text() == "three years of work"
    (out / "code").rename(tmp_path / "elsewhere")
    assert merge(plan(), out).was_finished


def test_half_written_leftovers_are_cleared_by_the_next_run(tmp_path: Path) -> None:
    left = tmp_path / "out" / STAGING_DIRECTORY / "code"
    left.mkdir(parents=True)
    (left / "model-00001-of-00002.safetensors").write_bytes(b"half")
    (tmp_path / "out" / LOCK_FILE).write_text("12345")
    assert_next_run_works(tmp_path / "out")


# --- two runs at once --------------------------------------------------------------------------


def test_the_second_of_two_runs_is_refused_at_once_and_names_the_first(tmp_path: Path) -> None:
    with Staging(tmp_path / "out", "first"):
        with pytest.raises(OutputLocked, match=rf"process {os.getpid()}\) is writing into"):
            merge(plan(), tmp_path / "out")
        assert (tmp_path / "out" / STAGING_DIRECTORY).exists()
    assert_next_run_works(tmp_path / "out")


# --- disks -------------------------------------------------------------------------------------


@contextmanager
def small_disk(path: Path, num_bytes: int) -> Iterator[Path]:
    """A file system of so many bytes, or, where mounting is not permitted, none at all."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(path)]
    is_mounted = os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0
    try:
        yield path
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: the disk is full, for one file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [100, 300_000, 700_000])
def test_a_write_that_fails_names_file_and_size_and_leaves_nothing(
    limit: int, tmp_path: Path
) -> None:
    with (
        file_size_limit(limit),
        pytest.raises(WriteFailed, match=r"\(\d+ bytes\) could not be written: File too large"),
    ):
        merge(plan(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert_next_run_works(tmp_path / "out")


def test_a_disk_that_fills_during_the_merge_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 24 << 20) as disk:
        ballast = disk / "ballast"

        def fill(_done: int, _total: int) -> None:
            free = shutil.disk_usage(disk).free
            if free < 64 << 20 and not ballast.exists():
                ballast.write_bytes(bytes(free))

        out = disk / "out"
        if shutil.disk_usage(disk).free > 64 << 20:  # nothing was mounted
            with file_size_limit(1000), pytest.raises(WriteFailed):
                merge(plan(), out)
        else:
            with pytest.raises(WriteFailed, match="No space left on device"):
                merge(plan(), out, progress=fill)
            assert ballast.exists()
            ballast.unlink()
        assert not out.exists()
        assert_next_run_works(out)


def test_a_disk_that_is_too_small_is_told_beforehand(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        if shutil.disk_usage(disk).free > 64 << 20:  # nothing was mounted
            assert_next_run_works(disk / "out")
        else:
            with pytest.raises(MergeToolsError, match=r"writes 0.02 GB, .* has 0.01 GB free"):
                merge(plan(), disk / "out")
            assert not (disk / "out").exists()


def test_an_output_that_cannot_be_created_is_told(tmp_path: Path) -> None:
    # Not a read-only directory: the superuser may write there too, but nobody makes one in /proc.
    with pytest.raises(WriteFailed, match=r"/proc/nothing/out .*could not be written"):
        merge(plan(), Path("/proc/nothing/out"))


def test_a_read_only_output_is_told(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        remount = ["mount", "-o", "remount,ro", str(disk)]
        if subprocess.run(remount, check=False, capture_output=True).returncode != 0:
            disk.chmod(0o555)
            if os.access(disk, os.W_OK):
                pytest.fail("this machine offers no way to make a directory read-only")
        with pytest.raises(WriteFailed, match="choose another output directory"):
            merge(plan(), disk / "out")
        disk.chmod(0o755) if not os.path.ismount(disk) else None
