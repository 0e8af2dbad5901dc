"""Tasks of mteb by name, and by the name of a benchmark, which stands for all of its tasks.

Knows mteb's registries; fetches no data.
"""

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.quality.errors import TaskNameError
from benchmarks.quality.representation import Representation

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

MODALITIES = {"text", "image"}
_MAX_NEAR = 5


def named_tasks(names: Sequence[str]) -> "list[AbsTask]":
    """The tasks behind `names`, each once, in order.

    Raises:
        TaskNameError: a name is neither a task nor a benchmark; says which are near.
    """
    import mteb

    found: dict[str, AbsTask] = {}
    benchmarks = {name: one for one in mteb.get_benchmarks() for name in _names(one)}
    for name in names:
        if name in benchmarks:
            found |= {task.metadata.name: task for task in benchmarks[name].tasks}
            continue
        try:
            task = mteb.get_task(name)
        except KeyError:
            raise TaskNameError(_unknown(name, list(benchmarks))) from None
        found[task.metadata.name] = task
    return list(found.values())


def check_task(task: "AbsTask", representation: Representation) -> None:
    """Refuse a task that such vectors cannot be measured by.

    Raises:
        TaskNameError: it needs sound or video, or is no retrieval while there are several vectors an input.
    """
    from mteb.abstasks import AbsTaskRetrieval

    name, needed = task.metadata.name, set(task.metadata.modalities)
    if not needed <= MODALITIES:
        raise TaskNameError(
            f"{name} needs {' and '.join(sorted(needed - MODALITIES))}; text and image can be embedded here."
        )
    if representation.vectors == "multi" and not isinstance(task, AbsTaskRetrieval):
        raise TaskNameError(
            f"{name} is of the type {task.metadata.type}, which takes one vector an input. "
            "Measure it with --vectors single; multi-vectors are for retrieval."
        )


def _names(benchmark: object) -> list[str]:
    return [getattr(benchmark, "name", ""), *(getattr(benchmark, "aliases", None) or [])]


def _unknown(name: str, benchmarks: Sequence[str]) -> str:
    import mteb

    tasks = mteb.get_tasks(exclude_superseded=False, exclude_private=False)
    known = {one.casefold(): one for one in [*(t.metadata.name for t in tasks), *benchmarks]}
    asked = name.casefold()
    near = difflib.get_close_matches(asked, known, n=_MAX_NEAR)
    # Whoever knows the beginning of a name finds the rest.
    near = [*near, *(one for one in known if one.startswith(asked))]
    said = ", ".join(dict.fromkeys(known[one] for one in near[:_MAX_NEAR]))
    return f"{name!r} is no task and no benchmark of mteb {mteb.__version__}. " + (
        f"Near: {said}." if said else "`mteb available-tasks` lists them."
    )
