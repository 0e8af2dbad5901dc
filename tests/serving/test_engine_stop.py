"""Processes, shared memory and sockets of an engine, without an engine."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import psutil
import pytest

from serving.engine.environment import children_without_main, variables
from serving.engine.processes import EngineProcesses
from serving.engine.sockets import SocketDirectory
from serving.engine.thread import in_own_thread

SPAWN = multiprocessing.get_context("spawn")


def wait_until_alone(process: psutil.Process) -> None:
    """Until `process` leads a group of its own."""
    deadline = time.monotonic() + 20
    while os.getpgid(process.pid) != process.pid:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def sleeper() -> Iterator[tuple[psutil.Process, EngineProcesses]]:
    """A process that sleeps, spawned as the engine's are."""
    processes, pids = EngineProcesses(), []

    def note(pid: int) -> None:
        pids.append(pid)
        processes.add(pid)

    child = SPAWN.Process(target=time.sleep, args=(600,))
    with children_without_main(note):
        child.start()
    assert pids == [child.pid]
    yield psutil.Process(child.pid), processes
    child.kill()
    child.join()


def test_what_an_engine_spawns_stands_in_a_session_of_its_own(
    sleeper: tuple[psutil.Process, EngineProcesses],
) -> None:
    process, _ = sleeper
    wait_until_alone(process)
    assert os.getsid(process.pid) == process.pid


@pytest.mark.parametrize("wound", [signal.SIGSTOP, signal.SIGKILL])
def test_stopped_and_dead_processes_are_finished_too(
    sleeper: tuple[psutil.Process, EngineProcesses], wound: signal.Signals
) -> None:
    process, processes = sleeper
    wait_until_alone(process)
    process.send_signal(wound)
    processes.finish()
    assert not process.is_running()


def test_a_process_spawned_after_the_killing_is_killed_too() -> None:
    processes = EngineProcesses()
    processes.kill()
    child = SPAWN.Process(target=time.sleep, args=(600,))
    with children_without_main(processes.add):
        child.start()
    child.join(20)
    assert child.exitcode == -signal.SIGKILL


def share(path: Path) -> None:
    segment = SharedMemory(create=True, size=4096)
    semaphore = SPAWN.Semaphore()
    name: str = semaphore._semlock.name
    path.with_suffix(".new").write_text(f"{segment.name} sem.{name.removeprefix('/')}")
    path.with_suffix(".new").rename(path)
    with semaphore:
        time.sleep(600)


def test_what_a_killed_process_shared_is_freed(tmp_path: Path) -> None:
    processes, path = EngineProcesses(), tmp_path / "name"
    child = SPAWN.Process(target=share, args=(path,))
    with children_without_main(processes.add):
        child.start()
    while not path.exists():
        time.sleep(0.01)
    shared = [Path("/dev/shm", name) for name in path.read_text().split()]
    processes.survey()
    child.kill()
    child.join()
    assert [file.exists() for file in shared] == [True, True]
    processes.finish()
    assert [file.exists() for file in shared] == [False, False]


def test_an_engines_process_and_its_children_go_with_a_parent_that_was_killed(
    tmp_path: Path,
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import multiprocessing, subprocess, time
            from serving.engine.environment import children_without_main
            with children_without_main():
                child = multiprocessing.get_context("spawn").Process(
                    target=subprocess.run, args=(["sleep", "600"],)
                )
                child.start()
            print(child.pid, flush=True)
            time.sleep(600)
            """
        )
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    family = [child]
    try:
        while len(family) == 1:
            family = [child, *child.children(recursive=True)]
            time.sleep(0.01)
        parent.kill()
        parent.communicate()
        assert psutil.wait_procs(family, timeout=20)[1] == []
    finally:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def test_threads_that_need_the_same_variable_take_it_back_together() -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with variables({"PVTEST_SHARED": "first"}):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    with variables({"PVTEST_SHARED": "second"}):
        assert os.environ["PVTEST_SHARED"] == "first"
        leave.set()
        thread.join()
        assert os.environ["PVTEST_SHARED"] == "first"
    assert "PVTEST_SHARED" not in os.environ


def test_the_sockets_directory_goes_with_its_last_user(monkeypatch: pytest.MonkeyPatch) -> None:
    # Engines of other tests of this process may hold it.
    monkeypatch.setattr("serving.engine.sockets._shared", None)
    monkeypatch.setattr("serving.engine.sockets._num_users", 0)
    first, second = SocketDirectory(), SocketDirectory()
    assert first.path == second.path
    first.release()
    first.release()
    assert second.path.is_dir()
    second.release()
    assert not second.path.exists()
    third = SocketDirectory()
    assert third.path.is_dir()
    third.release()


def test_a_cancelled_call_in_a_thread_is_interrupted_and_its_result_discarded() -> None:
    begun, go_on = threading.Event(), threading.Event()
    discarded: list[str] = []

    def call() -> str:
        begun.set()
        go_on.wait()
        return "result"

    async def scenario() -> None:
        waiting = asyncio.create_task(
            in_own_thread(call, interrupt=go_on.set, discard=discarded.append)
        )
        while not begun.is_set():
            await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert discarded == ["result"]

    asyncio.run(scenario())
