"""The forms a SOURCE may have, told apart, and the base and adapters found in each.

    base weights + adapters/adapter_config.json          jina-embeddings-v4: one file for all tasks
    base weights + adapters/<task>/adapter_config.json   one PEFT directory for each task
    adapter_config.json at the root                      an ordinary PEFT LoRA directory
    base weights alone, and adapters={task: directory}   any Qwen2.5-VL with any PEFT directories

Deliberately knows no tensor name and no shape.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from merge_tools.adapter import Adapter, is_task_name, read_adapters, require_task_name, tasks_in
from merge_tools.errors import SourceNotFound, TaskError, UnsupportedBase
from merge_tools.lora_config import CONFIG_FILE, read_lora_config
from merge_tools.source import Source, resolve_source

__all__ = ["Inputs", "find_inputs", "task_names"]

ADAPTERS_DIRECTORY = "adapters"


@dataclass(frozen=True, slots=True)
class Inputs:
    """A base and the adapters to merge into it; `is_complete` when no task was left out."""

    base: Source
    adapters: tuple[Adapter, ...]
    is_complete: bool

    def problems(self, task_names: Sequence[str]) -> Iterator[str]:
        """The tasks that config.json promises and no adapter holds."""
        held = {adapter.task for adapter in self.adapters}
        for task in task_names if self.is_complete else ():
            if task not in held:
                yield f"config.json names the task {task!r}, which no adapter holds."


def find_inputs(
    source: Source,
    *,
    tasks: Sequence[str] | None,
    adapters: Mapping[str, Path] | None,
    base: str | Path | None,
) -> Inputs:
    """Finds base and adapters.

    Raises:
        SourceNotFound: the source holds no adapters in any of the forms.
        TaskError: a task is unknown, impossible or named twice.
        SourceError: base or an adapter cannot be read.
    """
    base_source = resolve_source(base) if base is not None else source
    if adapters is not None:
        found = _given(adapters)
        return Inputs(base_source, _chosen(found, tasks), is_complete=False)
    if (source.root / CONFIG_FILE).exists():
        found = _at_root(source, tasks)
        if base is None:
            base_source = _named_base(source)
        return Inputs(base_source, found, is_complete=False)
    directory = source.root / ADAPTERS_DIRECTORY
    if (directory / CONFIG_FILE).exists():
        found = tuple(read_adapters(directory, name=source.name, task=None))
    else:
        found = _one_each(directory, source)
    return Inputs(base_source, _chosen(found, tasks), is_complete=tasks is None)


def task_names(source: Source, *, adapters: Mapping[str, Path] | None) -> tuple[str, ...] | None:
    """The tasks that a source has adapters for; None for a lone adapter that is not named.

    Raises:
        SourceError: the source holds no adapters, or they cannot be read.
    """
    if adapters is not None:
        return tuple(adapters)
    if (source.root / CONFIG_FILE).exists():
        return tasks_in(source.root) or None
    # The base does not matter here, and naming one saves looking for it.
    found = find_inputs(source, tasks=None, adapters=None, base=source.root)
    return tuple(adapter.task for adapter in found.adapters)


def _at_root(source: Source, tasks: Sequence[str] | None) -> tuple[Adapter, ...]:
    """The adapters of a PEFT directory: those its keys name, or else one that needs a name."""
    if tasks_in(source.root):
        return _chosen(tuple(read_adapters(source.root, name=source.name, task=None)), tasks)
    task = _single_task(source, tasks)
    return tuple(read_adapters(source.root, name=source.name, task=task))


def _given(adapters: Mapping[str, Path]) -> tuple[Adapter, ...]:
    found: list[Adapter] = []
    for task, directory in adapters.items():
        require_task_name(task)
        path = Path(directory).expanduser()
        if not path.is_dir():
            raise SourceNotFound(f"The adapter for {task!r} should be a directory, got {path}.")
        found += _exactly_one(path, path.resolve().name, task)
    if not found:
        raise TaskError("No adapter is given, so there is nothing to merge. Name at least one.")
    return tuple(found)


def _one_each(directory: Path, source: Source) -> tuple[Adapter, ...]:
    paths = sorted(path.parent for path in directory.glob(f"*/{CONFIG_FILE}"))
    if not paths:
        raise SourceNotFound(
            f"{source.root} holds no adapters: neither {ADAPTERS_DIRECTORY}/{CONFIG_FILE}, nor "
            f"{ADAPTERS_DIRECTORY}/<task>/{CONFIG_FILE}, nor a {CONFIG_FILE} of its own. Point to "
            "the original checkpoint, or name PEFT directories to merge into this base with "
            "--adapter TASK=DIRECTORY (adapters={TASK: DIRECTORY})."
        )
    return tuple(a for path in paths for a in _exactly_one(path, source.name, path.name))


def _exactly_one(directory: Path, name: str, task: str) -> Sequence[Adapter]:
    found = read_adapters(directory, name=name, task=task)
    if len(found) > 1:
        held = ", ".join(adapter.task for adapter in found)
        raise TaskError(
            f"{directory} should hold the one adapter for {task!r}, but holds several tasks: "
            f"{held}. Put it at {ADAPTERS_DIRECTORY}/{CONFIG_FILE} beside its base instead."
        )
    return found


def _single_task(source: Source, tasks: Sequence[str] | None) -> str:
    if tasks is None:
        if not is_task_name(source.short_name):
            raise TaskError(
                f"{source.root} holds one adapter, and its task would be called after the "
                f"directory, but {source.short_name!r} cannot name a task: letters, digits, '.', "
                "'_' and '-' only. Name it with --task NAME (tasks=[NAME])."
            )
        return source.short_name
    if len(tasks) != 1:
        raise TaskError(
            f"{source.root} is a single PEFT adapter, so it is one task; got "
            f"{', '.join(tasks) or 'none'}. Name it with one --task NAME (tasks=[NAME])."
        )
    return require_task_name(tasks[0])


def _named_base(source: Source) -> Source:
    config = read_lora_config(source.root)
    if not config.base_name:
        raise UnsupportedBase(
            f"{source.root / CONFIG_FILE} names no base model. Name it with --base (base=...)."
        )
    try:
        return resolve_source(config.base_name, revision=config.base_revision)
    except SourceNotFound as cause:
        raise SourceNotFound(
            f"{source.root / CONFIG_FILE} names the base model {config.base_name!r}, which is not "
            "here. Say where it is with --base (base=...)."
        ) from cause


def _chosen(found: tuple[Adapter, ...], tasks: Sequence[str] | None) -> tuple[Adapter, ...]:
    if tasks is None:
        return found
    by_task = {adapter.task: adapter for adapter in found}
    unknown = [task for task in tasks if task not in by_task]
    if unknown or not tasks or len(set(tasks)) != len(tasks):
        what = f"has no task {unknown[0]!r}" if unknown else f"cannot merge {list(tasks)}"
        raise TaskError(f"The source {what}. It has {', '.join(sorted(by_task))}: name each once.")
    return tuple(by_task[task] for task in tasks)
