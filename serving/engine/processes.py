"""The processes of one engine, stopped so that nothing of them is left: no process, no shared memory.

Knows processes and how vLLM is asked to stop; not what the engine computes.
"""

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from serving.engine.thread import in_own_thread

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_GRACE_S = 20.0
_KILL_S = 5.0
_SHARED_MEMORY = Path("/dev/shm")


class EngineProcesses:
    """What an engine's start spawned, and what those spawned in turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spawned: list[psutil.Process] = []
        self._others: list[psutil.Process] = []
        self._segments: set[str] = set()
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
                self._others += process.children(recursive=True)
        for process in [*self._spawned, *self._others]:
            # Killed processes leave what Python names so behind, hundreds of megabytes.
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                paths = [Path(file.path) for file in process.open_files()]
                self._segments |= {
                    path.name
                    for path in paths
                    if path.parent == _SHARED_MEMORY and path.name.startswith("psm_")
                }

    def can_end(self) -> bool:
        """Whether every process still runs, so that it can be asked to end."""
        with suppress(psutil.NoSuchProcess):
            stuck = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            return all(process.status() not in stuck for process in [*self._spawned, *self._others])
        return False

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
        for name in self._segments:
            with suppress(FileNotFoundError):
                segment = SharedMemory(name)
                segment.close()
                segment.unlink()


async def stop(llm: "AsyncLLM", processes: EngineProcesses) -> None:
    """Shut `llm` down and return when its processes are gone."""
    is_dead = llm.errored
    if llm.output_handler is not None:
        # It would report the processes' wanted end as an engine's death.
        llm.output_handler.cancel()
    if threading.main_thread().is_alive():
        await in_own_thread(lambda: stop_now(llm, processes, kill=is_dead))
    else:
        # The interpreter is exiting: no thread can be started, and nobody else needs this loop.
        stop_now(llm, processes, kill=is_dead)


def stop_now(llm: "AsyncLLM", processes: EngineProcesses, *, kill: bool) -> None:
    """`stop` for a thread; `kill` asks nobody to end."""
    if kill or not processes.can_end():
        processes.kill()
    llm.shutdown(timeout=_GRACE_S)
    processes.finish()
