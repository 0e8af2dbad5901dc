"""The processes of one engine, stopped so that nothing of them is left: no process, no shared memory.

Knows processes and how vLLM is asked to stop; not what the engine computes.
"""

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from serving.engine.thread import in_own_thread

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_KILL_S = 5.0
_SHARED_MEMORY = Path("/dev/shm")

# What Python calls the files of shared memory and semaphores, and what it keeps of them: kind and name.
_TRACKED = {"psm_": ("shared_memory", "/psm_"), "sem.mp-": ("semaphore", "/mp-")}


class EngineProcesses:
    """What an engine's start spawned, and what those spawned in turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spawned: list[psutil.Process] = []
        self._others: list[psutil.Process] = []
        self._shared: set[Path] = set()
        self._killed = False

    def add(self, pid: int) -> None:
        """Note a process that was just spawned; after `kill` it is killed at once."""
        with self._lock:
            with suppress(psutil.NoSuchProcess):
                self._spawned.append(psutil.Process(pid))
            killed = self._killed
        if killed:
            self.kill()

    def survey(self) -> None:
        """Note what the spawned processes spawned and share; once one is dead it cannot be asked."""
        for process in self._spawned:
            with suppress(psutil.NoSuchProcess):
                found = process.children(recursive=True)
                self._others += [other for other in found if other not in self._others]
        # A semaphore is mapped under a name that it no longer has, so files are told by their number.
        inodes = set[int]()
        for process in [*self._spawned, *self._others]:
            with suppress(OSError):
                maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8").splitlines()
                inodes |= {int(line.split()[4]) for line in maps if str(_SHARED_MEMORY) in line}
        if inodes:
            self._shared |= {path for path in _SHARED_MEMORY.iterdir() if _inode(path) in inodes}

    def kill(self) -> None:
        """Kill what is left, stopped processes and those spawned meanwhile too."""
        with self._lock:
            self._killed = True
            for process in self._spawned:
                # Each leads a group (`serving.engine.child`), with what it has spawned since the survey.
                with suppress(ProcessLookupError):
                    if process.is_running() and os.getpgid(process.pid) == process.pid:
                        os.killpg(process.pid, signal.SIGKILL)
            for process in [*self._spawned, *self._others]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def finish(self) -> None:
        """Kill what is left, wait until it is gone, and free the memory that it shared."""
        self.kill()
        # multiprocessing first: it waits for its own children, and reaps them.
        multiprocessing.active_children()
        psutil.wait_procs([*self._spawned, *self._others], timeout=_KILL_S)
        for path in self._shared:
            _free(path)


def _inode(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_ino
    return None


def _free(path: Path) -> None:
    """Remove what a killed process could not; Python would do it, and complain, when it exits."""
    for prefix, (kind, name) in _TRACKED.items():
        if path.name.startswith(prefix):
            with suppress(FileNotFoundError):
                path.unlink()
                resource_tracker.unregister(name + path.name.removeprefix(prefix), kind)


async def stop(llm: "AsyncLLM", processes: EngineProcesses) -> None:
    """Shut `llm` down and return when its processes are gone."""
    if threading.main_thread().is_alive():
        await in_own_thread(lambda: stop_now(llm, processes))
    else:
        # The interpreter is exiting: no thread can be started, and nobody else needs this loop.
        stop_now(llm, processes)


def stop_now(llm: "AsyncLLM", processes: EngineProcesses) -> None:
    """`stop` for a thread."""
    processes.survey()
    # An engine holds nothing that is worth waiting for: asked to end, it takes ten seconds and more.
    llm.shutdown(timeout=0)
    processes.finish()
