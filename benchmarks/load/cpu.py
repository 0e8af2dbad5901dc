"""Processor time and memory of a server: its whole tree of processes, split by what they do.

vLLM names its processes: `VLLM::Worker` runs the forward pass, `VLLM::EngineCore` schedules (and runs
the forward pass where there is no worker), everything else is the API's. Linux only.
"""

import resource
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class CpuSeconds:
    """Processor time, user and system.

    Attributes:
        api: HTTP, tokenising, images, pooling outside the engine: every process that is not vLLM's.
        core: vLLM's scheduler processes.
        model: the processes that run the forward pass.
    """

    api: float = 0.0
    core: float = 0.0
    model: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.api + self.core + self.model

    def __sub__(self, before: "CpuSeconds") -> "CpuSeconds":
        return CpuSeconds(self.api - before.api, self.core - before.core, self.model - before.model)


def processes(root_pid: int) -> list[psutil.Process]:
    """The process and all below it that are alive."""
    try:
        root = psutil.Process(root_pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(root_pid: int) -> CpuSeconds:
    """Processor time of a tree so far; differences are exact where no process was orphaned meanwhile."""
    sums = {"api": 0.0, "core": 0.0, "worker": 0.0}
    for process in processes(root_pid):
        try:
            times = process.cpu_times()
            # Children that ended and were waited for are in their parent's figures.
            seconds = times.user + times.system + times.children_user + times.children_system
            sums[_role(process)] += seconds
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    if sums["worker"] == 0.0:
        # One process is scheduler and model at once, as on a single GPU.
        return CpuSeconds(api=sums["api"], core=0.0, model=sums["core"])
    return CpuSeconds(api=sums["api"], core=sums["core"], model=sums["worker"])


def rss_bytes(root_pid: int) -> int:
    """Resident memory of a tree; pages that processes share count once for each."""
    total = 0
    for process in processes(root_pid):
        try:
            total += process.memory_info().rss
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return total


def engine_pids(root_pid: int) -> list[int]:
    """VLLM's scheduler and worker processes in a tree."""
    return [process.pid for process in processes(root_pid) if _role(process) != "api"]


def own_cpu_seconds() -> float:
    """Processor time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _role(process: psutil.Process) -> str:
    try:
        title = " ".join(process.cmdline()[:1]) or process.name()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return "api"
    if title.startswith("VLLM::Worker"):
        return "worker"
    if title.startswith("VLLM::EngineCore"):
        return "core"
    return "api"
