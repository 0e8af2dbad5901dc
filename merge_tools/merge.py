"""Carrying out a plan: lock, room, one pass over the base, manifests, rename.

Deliberately decides nothing about tensors: what goes where stands in the plan.
"""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from merge_tools.errors import MergeInterrupted, NotEnoughSpace, OutputExists
from merge_tools.executor import Digests, Progress, execute
from merge_tools.manifest import MANIFEST_FILE, read_manifest
from merge_tools.plan import MergePlan
from merge_tools.record import manifest_of
from merge_tools.signals import held_signals, let_signals_through
from merge_tools.staging import Staging, fingerprint_of
from merge_tools.writer import CheckpointWriter, write_file

__all__ = ["MergeReport", "merge"]

# Manifests, directories and the file system's own books.
SPARE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge did; `was_finished` when an earlier, interrupted run had done the work."""

    checkpoints: tuple[Path, ...]
    dtype: str
    bytes_read: int
    bytes_written: int
    bytes_linked: int
    seconds: float
    was_finished: bool

    def describe(self) -> str:
        """The report as text for a terminal."""
        lines = [f"{path} ({self.dtype})" for path in self.checkpoints]
        if self.was_finished:
            lines.append(
                "An earlier run was cut off after its work was done; this one finished it."
            )
        else:
            lines.append(
                f"read {self.bytes_read / 1e9:.3f} GB, wrote {self.bytes_written / 1e9:.3f} GB, "
                f"linked {self.bytes_linked / 1e9:.3f} GB in {self.seconds:.1f} s"
            )
        return "\n".join(lines)


def merge(
    plan: MergePlan,
    out: Path,
    *,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> MergeReport:
    """Writes `out`/<task>/ for every task of the plan.

    Each task's directory appears whole, by one rename, after everything is on disk. On any error,
    Ctrl-C and SIGTERM nothing is left behind; after SIGKILL the next merge into `out` clears up.

    Args:
        plan: from plan_merge.
        out: directory for the tasks' directories; it is created.
        progress: called with (base bytes done, base bytes in all).
        overwrite: replace checkpoints that are there already. Nothing else is ever replaced.

    Raises:
        OutputExists: a task's directory is there, and is finished or not ours.
        OutputLocked: another merge is writing into `out`.
        NotEnoughSpace: the file system has not enough room.
        WriteFailed: the operating system refused a write.
        NonFiniteError: the base holds NaN or infinity, or a value does not fit the dtype.
        CorruptShard: an input changed or could not be read.
        MergeInterrupted: SIGTERM arrived.
    """
    started_s = time.monotonic()
    out = Path(out).absolute()
    with held_signals(terminated=_terminated), Staging(out, _fingerprint(plan)) as staging:
        was_finished = set(plan.tasks) <= set(staging.finished)
        link = False
        if not was_finished:
            for task in plan.tasks:
                _require_free(out / task, overwrite=overwrite)
            link = staging.can_link()
            _require_space(plan, out, link=link)
            _fill(plan, staging, progress, link=link)
            let_signals_through()
            staging.commit(plan.tasks)
    return MergeReport(
        checkpoints=tuple(out / task for task in plan.tasks),
        dtype=plan.dtype.name,
        bytes_read=0 if was_finished else plan.bytes_read,
        bytes_written=0 if was_finished else _bytes_to_write(plan, link=link),
        bytes_linked=plan.bytes_linked if link else 0,
        seconds=time.monotonic() - started_s,
        was_finished=was_finished,
    )


def _fill(plan: MergePlan, staging: Staging, progress: Progress | None, *, link: bool) -> None:
    directories = {task: staging.directory(task) for task in plan.tasks}
    with CheckpointWriter(directories, plan.files) as writer:
        digests = execute(plan, writer, progress=progress)
        writer.finish(link=link)
    for directory in directories.values():
        let_signals_through()
        for name, path in plan.sidecars.copied.items():
            write_file(directory / name, path.read_bytes())
        for name, text in plan.sidecars.texts.items():
            write_file(directory / name, text.encode())
    _write_manifests(plan, digests, staging)


def _write_manifests(plan: MergePlan, digests: Digests, staging: Staging) -> None:
    for adapter in plan.adapters:
        text = manifest_of(plan, adapter, digests).to_json()
        write_file(staging.root / adapter.task / MANIFEST_FILE, text.encode())


def _require_free(path: Path, *, overwrite: bool) -> None:
    """Refuses to replace anything but a finished checkpoint, and that only when told to."""
    if path.is_symlink():
        raise OutputExists(
            f"{path} is a symbolic link, and a merge puts a directory of its own there. It is not "
            "ours to remove: move it away, or choose another output directory."
        )
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / MANIFEST_FILE).is_file():
        raise OutputExists(
            f"{path} exists and is not a merged checkpoint (it has no {MANIFEST_FILE}). It is not "
            "ours to remove: move it away, or choose another output directory."
        )
    if not overwrite:
        raise OutputExists(
            f"{path} already holds a finished checkpoint. Verify it with polyvec verify, or replace "
            "it with --overwrite (overwrite=True)."
        )
    known = {MANIFEST_FILE, *read_manifest(path).files}
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in known)
    if foreign:
        raise OutputExists(
            f"{path} holds {foreign[0]}, which the merge that made it did not write. It is not ours "
            "to remove: move it away, or choose another output directory."
        )


def _require_space(plan: MergePlan, out: Path, *, link: bool) -> None:
    needed = _bytes_to_write(plan, link=link) + SPARE_BYTES
    free = shutil.disk_usage(out).free
    if free < needed:
        raise NotEnoughSpace(
            f"The merge writes {needed / 1e9:.2f} GB, and the file system of {out} has "
            f"{free / 1e9:.2f} GB free. Make room, merge fewer tasks, or choose another directory."
        )


def _bytes_to_write(plan: MergePlan, *, link: bool) -> int:
    return plan.bytes_written + (0 if link else plan.bytes_linked)


def _fingerprint(plan: MergePlan) -> str:
    inputs = {tensor.base.path for tensor in plan.tensors}
    for adapter in plan.adapters:
        inputs |= {t.path for pair in adapter.pairs.values() for t in (pair.a, pair.b)}
        inputs |= {tensor.path for tensor in adapter.replaced.values()}
        inputs |= {adapter.directory / "adapter_config.json"}
    inputs |= set(plan.sidecars.copied.values())
    options = {"dtype": plan.dtype.name, "tasks": ",".join(plan.tasks), **plan.sidecars.texts}
    return fingerprint_of(sorted(inputs), options)


def _terminated() -> MergeInterrupted:
    return MergeInterrupted(
        f"SIGTERM ended the merge (process {os.getpid()}); nothing was left behind. Run it again."
    )
