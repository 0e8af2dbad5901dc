"""Merges in forked children that are killed at given moments; prints what each left behind.

    python -m tests.merge.killed SOURCE OUT SIGNAL DELAY_S...

A script of its own, so that the children are forked from a process without threads, after the one
slow import. For every delay: merge, kill, list OUT; then merge again without killing, in a child
of its own, and say how that ended.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from merge_tools import MergeToolsError, merge, plan_merge, resolve_source, verify


def run(source: Path, out: Path) -> int:
    """Merges in a child; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        merge(plan_merge(resolve_source(source)), out)
    except MergeToolsError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(1)
    os._exit(0)


def finished(out: Path) -> list[str]:
    """What looks finished: everything in OUT that is not hidden."""
    found = out.iterdir() if out.exists() else ()
    return sorted(path.name for path in found if not path.name.startswith("."))


def main(source: Path, out: Path, number: int, delays_s: list[float]) -> None:
    for delay_s in delays_s:
        pid = run(source, out)
        time.sleep(delay_s)
        os.kill(pid, number)
        _, status = os.waitpid(pid, 0)
        left = finished(out)
        whole = all(verify(out / name).passed for name in left)
        hidden = out.exists() and any(path.name.startswith(".") for path in out.iterdir())
        rerun_code: int | None = None
        if len(left) < 3:
            _, rerun_status = os.waitpid(run(source, out), 0)
            rerun_code = os.waitstatus_to_exitcode(rerun_status)
        result = {
            "delay_s": delay_s,
            "code": os.waitstatus_to_exitcode(status),
            "left": left,
            "whole": whole,
            "hidden": hidden,
            "rerun_code": rerun_code,
            "after": sorted(path.name for path in out.iterdir()),
            "after_passed": verify(out).passed,
        }
        sys.stdout.write(json.dumps(result) + "\n")
        for path in sorted(out.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        out.rmdir()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        int(sys.argv[3]),
        [float(delay) for delay in sys.argv[4:]],
    )
