"""Whether merged checkpoints are whole and, given their source, right.

Without the source every byte is compared with the digests of the manifest, which finds damage.
With it every touched tensor is computed again and every other one read again, and all are compared
byte for byte. Deliberately repairs nothing, and knows no model code: that is verify_forward's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from merge_tools.comparing import compare_with_source
from merge_tools.errors import NUM_PROBLEMS_SHOWN, NotACheckpoint, SourceError
from merge_tools.executor import Progress
from merge_tools.integrity import DigestCache, check_integrity
from merge_tools.manifest import MANIFEST_FILE, Manifest, read_manifest
from merge_tools.source import Source

__all__ = ["CheckpointReport", "VerifyReport", "checkpoints_in", "verify"]


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """What is wrong with one checkpoint; nothing, if `problems` is empty."""

    task: str
    path: Path
    num_tensors: int
    num_files: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """One report for each checkpoint; `against_source` if they were computed again."""

    checkpoints: tuple[CheckpointReport, ...]
    against_source: bool

    @property
    def passed(self) -> bool:
        """Whether nothing was found wrong anywhere."""
        return not any(checkpoint.problems for checkpoint in self.checkpoints)

    def describe(self) -> str:
        """The report as text for a terminal."""
        how = "computed again from the source" if self.against_source else "against their digests"
        lines = []
        for checkpoint in self.checkpoints:
            if checkpoint.problems:
                lines.append(f"FAILED  {checkpoint.task} ({checkpoint.path})")
                lines += [f"  - {problem}" for problem in checkpoint.problems[:NUM_PROBLEMS_SHOWN]]
                num_hidden = len(checkpoint.problems) - NUM_PROBLEMS_SHOWN
                lines += [f"  … and {num_hidden} more"] * (num_hidden > 0)
            else:
                lines.append(
                    f"ok      {checkpoint.task}: {checkpoint.num_tensors} tensors and "
                    f"{checkpoint.num_files} files, {how}"
                )
        return "\n".join(lines)


def verify(
    out: Path,
    *,
    source: Source | None = None,
    adapters: Mapping[str, Path] | None = None,
    base: str | Path | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Checks one merged checkpoint, or every one in a directory.

    Args:
        out: OUT with its tasks, or OUT/<task>.
        source: what they were merged from; None compares with the recorded digests only.
        adapters: as given to plan_merge, for a source that does not bring its adapters.
        base: as given to plan_merge.
        progress: called with (bytes done, bytes in all).

    Raises:
        NotACheckpoint: there is no merged checkpoint.
        SourceError: the source cannot be used or does not fit together, or adapters or base are
            given without one.
    """
    if source is None and (adapters is not None or base is not None):
        raise SourceError(
            "An adapter or a base to verify against was given without the source they belong to. "
            "Name it with --source (source=...), or leave them out to check the digests alone."
        )
    found, broken = _read_manifests(checkpoints_in(Path(out)))
    problems: dict[Path, list[str]] = {path: [] for path in found}
    cache = DigestCache()
    for path, manifest in found.items():
        # With a source the weights are compared byte for byte below, so digesting them can wait.
        problems[path] += check_integrity(
            path, manifest, cache, with_weights=source is None, progress=progress
        )
    if source is not None and found:
        compared = compare_with_source(
            found, source, adapters=adapters, base=base, progress=progress
        )
        for path, differences in compared.items():
            problems[path] += differences
    reports = [
        CheckpointReport(m.task, path, len(m.tensors), len(m.files), tuple(problems[path]))
        for path, m in found.items()
    ]
    reports += [CheckpointReport(p.name, p, 0, 0, (problem,)) for p, problem in broken.items()]
    return VerifyReport(tuple(reports), against_source=source is not None)


def checkpoints_in(out: Path) -> Sequence[Path]:
    """`out` itself if it is a checkpoint, else the checkpoints right under it.

    A directory under `out` that holds weights but no manifest is returned too: it looks like a
    checkpoint, and the caller shall say that it is none.

    Raises:
        NotACheckpoint: there is none.
    """
    if not out.is_dir():
        raise NotACheckpoint(f"{out} is not a directory. Point to OUT or OUT/<task> of a merge.")
    if (out / MANIFEST_FILE).exists():
        return [out]
    paths = [
        path
        for path in sorted(out.iterdir())
        if path.is_dir()
        and not path.name.startswith(".")
        and ((path / MANIFEST_FILE).exists() or any(path.glob("model*.safetensors")))
    ]
    if not any((path / MANIFEST_FILE).exists() for path in paths):
        read_manifest(out)  # says what is missing
    return paths


def _read_manifests(
    paths: Sequence[Path],
) -> tuple[dict[Path, Manifest], dict[Path, str]]:
    found: dict[Path, Manifest] = {}
    broken: dict[Path, str] = {}
    for path in paths:
        try:
            found[path] = read_manifest(path)
        except NotACheckpoint as problem:
            if len(paths) == 1:
                raise
            broken[path] = str(problem)
    return found, broken
