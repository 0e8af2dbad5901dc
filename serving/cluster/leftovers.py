"""Processes that a local cluster may leave behind, above all the HAProxy that holds its port. Knows no Ray."""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import psutil

_END_S = 5.0
_INIT = 1


def descendants() -> list[psutil.Process]:
    """What this process has started that still runs, directly or not."""
    return psutil.Process().children(recursive=True)


def end_all(processes: Collection[psutil.Process]) -> None:
    """Wait a moment for `processes` to end, and kill those that do not."""
    _, alive = psutil.wait_procs(processes, timeout=_END_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def end_orphans(directory: Path) -> None:
    """End processes that nobody waits for any more and that were started with a file in `directory`.

    A cluster that was killed leaves its HAProxy there, which goes on listening.
    """
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.ppid() == _INIT and any(
                part.startswith(f"{directory}/") for part in process.cmdline()
            ):
                process.kill()
                process.wait(_END_S)
