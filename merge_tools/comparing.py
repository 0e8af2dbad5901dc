"""Merged checkpoints against their source: the merge computed again and compared byte for byte.

Deliberately writes nothing; it is the executor with a sink that compares instead of writing.
"""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from threading import Lock, local

import torch

from merge_tools.buffers import Buffer, allocate
from merge_tools.errors import MergeToolsError
from merge_tools.executor import Digests, Progress, execute
from merge_tools.inputs import task_names
from merge_tools.integrity import SUFFIX, stored_tensors
from merge_tools.manifest import Manifest
from merge_tools.plan import INDEX_FILE, MergePlan, TensorPlan, plan_merge
from merge_tools.reading import Reader
from merge_tools.record import manifest_of
from merge_tools.shards import StoredTensor
from merge_tools.source import Source

__all__ = ["compare_with_source"]


def compare_with_source(
    manifests: Mapping[Path, Manifest],
    source: Source,
    *,
    adapters: Mapping[str, Path] | None,
    base: str | Path | None,
    progress: Progress | None,
) -> Mapping[Path, Sequence[str]]:
    """Computes every checkpoint's tensors again and names those that differ.

    Checkpoints of one dtype share one pass over the base. Several may be of one task: each is
    compared. A checkpoint whose task the source does not have is not compared, and that is its
    problem; the others are.

    Raises:
        SourceError: the source cannot be used.
    """
    problems: dict[Path, list[str]] = {path: [] for path in manifests}
    comparable: dict[Path, Manifest] = {}
    held = _held_tasks(manifests, source, adapters)
    for path, manifest in manifests.items():
        if manifest.task in held:
            comparable[path] = manifest
        else:
            problems[path].append(
                f"The source has no task {manifest.task!r} (it has {', '.join(sorted(held))}), so "
                "this checkpoint was not compared. Verify it against its own source."
            )
    for dtype in sorted({manifest.dtype for manifest in comparable.values()}):
        by_task: dict[str, list[Path]] = {}
        for path, manifest in comparable.items():
            if manifest.dtype == dtype:
                by_task.setdefault(manifest.task, []).append(path)
        plan = plan_merge(source, tasks=list(by_task), dtype=dtype, adapters=adapters, base=base)
        with Reader() as reader:
            sink = _Comparison(by_task, reader)
            digests = execute(plan, sink, progress=progress)
        for path, task in ((path, task) for task, paths in by_task.items() for path in paths):
            problems[path] += sink.differences(path)
            problems[path] += _record_differences(plan, task, digests, manifests[path])
    return problems


def _held_tasks(
    manifests: Mapping[Path, Manifest], source: Source, adapters: Mapping[str, Path] | None
) -> Set[str]:
    """The tasks that the source has; a lone adapter without a name is whatever was made of it."""
    held = task_names(source, adapters=adapters)
    if held is not None:
        return frozenset(held)
    tasks = {manifest.task for manifest in manifests.values()}
    if len(tasks) == 1:
        return tasks
    made_of_it = {m.task for m in manifests.values() if m.merge.adapter.name == source.name}
    return made_of_it if len(made_of_it) == 1 else {source.short_name}


def _record_differences(
    plan: MergePlan, task: str, digests: Digests, recorded: Manifest
) -> Sequence[str]:
    """Where the manifest says other than a merge of this source would."""
    adapter = next(adapter for adapter in plan.adapters if adapter.task == task)
    expected = manifest_of(plan, adapter, digests)
    problems = []
    for field in _COMPARED_FIELDS:
        got, wanted = getattr(recorded, field), getattr(expected, field)
        if got != wanted:
            problems.append(f"polyvec.json says {field} {got!r}, the source gives {wanted!r}.")
    for name, file in expected.files.items():
        # Which tensors share a shard depends on the tasks merged together, so shards are not
        # compared as files; their tensors are, one by one.
        if not name.endswith(SUFFIX) and name != INDEX_FILE and recorded.files.get(name) != file:
            problems.append(f"{name} is not what a merge of this source writes.")
    for name in sorted(expected.tensors.keys() - recorded.tensors.keys()):
        problems.append(f"The tensor {name} of the source is missing from the checkpoint.")
    for name in sorted(recorded.tensors.keys() - expected.tensors.keys()):
        problems.append(f"The tensor {name} is extra: the source has none of that name.")
    for name, record in recorded.tensors.items():
        if name in expected.tensors and record.xxh3_128 != expected.tensors[name].xxh3_128:
            problems.append(f"polyvec.json's digest of {name} is not what the source gives.")
    changed = [
        name
        for name, record in recorded.tensors.items()
        if record.source_xxh3_128
        and digests.sources.get(name, record.source_xxh3_128) != record.source_xxh3_128
    ]
    if changed:
        problems.append(
            f"The base is not the one that was merged: {changed[0]} differs"
            f"{f' and {len(changed) - 1} more' if len(changed) > 1 else ''}."
        )
    return problems


_COMPARED_FIELDS = (
    "dtype",
    "hidden_size",
    "matryoshka_dims",
    "multi_vector_dim",
    "max_text_tokens",
    "prompts",
    "default_prompt",
    "image_prompt",
    "special_token_ids",
    "image",
)


class _Comparison:
    """The sink that compares."""

    def __init__(self, directories: Mapping[str, Sequence[Path]], reader: Reader) -> None:
        self._of_task = directories
        self._all = [path for paths in directories.values() for path in paths]
        self._stored = {path: _all_tensors(path) for path in self._all}
        self._different: dict[Path, set[str]] = {path: set() for path in self._all}
        self._reader = reader
        self._lock = Lock()
        self._memory = local()

    def put(self, task: str | None, tensor: TensorPlan, first_byte: int, data: Buffer) -> None:
        """Compares bytes with what stands at their place."""
        seen: set[tuple[int, int, int]] = set()
        for each in self._all if task is None else self._of_task[task]:
            stored = self._stored[each].get(tensor.name)
            if stored is None or stored.shape != tensor.base.shape:
                continue  # the manifest's check has said so
            stat = stored.path.stat()
            place = (stat.st_dev, stat.st_ino, stored.offset)
            if place in seen:
                continue  # the same bytes through another hard link
            if self._is_same(stored, first_byte, data):
                seen.add(place)
            else:
                with self._lock:
                    self._different[each].add(tensor.name)

    def differences(self, path: Path) -> Sequence[str]:
        """One sentence for each tensor that differs."""
        return [
            f"The tensor {name} differs from what the source gives. Merge again."
            for name in sorted(self._different[path])
        ]

    def _is_same(self, stored: StoredTensor, first_byte: int, data: Buffer) -> bool:
        size = stored.dtype.num_bytes
        buffer = self._buffer(Reader.buffer_bytes(data.numel()))
        values = self._reader.read(stored, first_byte // size, data.numel() // size, buffer)
        return torch.equal(values.view(torch.uint8), data)

    def _buffer(self, num_bytes: int) -> Buffer:
        buffer: Buffer | None = getattr(self._memory, "buffer", None)
        if buffer is None or buffer.numel() < num_bytes:
            buffer = allocate(num_bytes)
            self._memory.buffer = buffer
        return buffer


def _all_tensors(directory: Path) -> Mapping[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        try:
            tensors |= stored_tensors(directory, path.name)
        except MergeToolsError:
            continue  # the header's check has said so
    return tensors
