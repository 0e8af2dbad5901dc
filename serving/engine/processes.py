"""Stop vLLM so that nothing of it is left: its processes wait for each other, and a slow one is killed."""

import threading
from typing import TYPE_CHECKING

import psutil

from serving.engine.thread import in_own_thread

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_GRACE_S = 20.0
_KILL_S = 5.0


async def stop(llm: "AsyncLLM") -> None:
    """Shut `llm` down and return when its processes are gone."""
    ours = _processes(llm)
    if llm.output_handler is not None:
        # It would report the processes' wanted end as an engine's death.
        llm.output_handler.cancel()
    if threading.main_thread().is_alive():
        await in_own_thread(lambda: _stop(llm, ours))
    else:
        # The interpreter is exiting: no thread can be started, and nobody else needs this loop.
        _stop(llm, ours)


def _stop(llm: "AsyncLLM", ours: list[psutil.Process]) -> None:
    llm.shutdown(timeout=_GRACE_S)
    _, alive = psutil.wait_procs(ours, timeout=_KILL_S)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=_KILL_S)


def _processes(llm: "AsyncLLM") -> list[psutil.Process]:
    manager = llm.engine_core.resources.engine_manager
    found: list[psutil.Process] = []
    for core in [] if manager is None else manager.processes:
        try:
            process = psutil.Process(core.pid)
            found += [*process.children(recursive=True), process]
        except psutil.NoSuchProcess:
            continue
    return found
