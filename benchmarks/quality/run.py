"""Run tasks with mteb, which scores them and writes their results.

Knows the order of things: what can be refused at once, then the data, then engines, then the measuring. Results
are `OUTPUT/results/<model>/<revision>/<task>.json`, with the settings that differ from the paper's as a folder
`experiments/<settings>` between, as mteb files and reads them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.quality.errors import FetchError, TaskNameError
from benchmarks.quality.model import Measured, MeasuredModel
from benchmarks.quality.named_tasks import check_task
from benchmarks.quality.source import Source

if TYPE_CHECKING:
    from mteb import ResultCache
    from mteb.abstasks import AbsTask
    from mteb.results import TaskResult

_BATCH_SIZE = 32
"""Inputs that mteb's loader decodes at once; `model` makes larger groups of texts."""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """What one task came to.

    Attributes:
        task: its name.
        adapter: it was embedded with.
        metric: mteb's main score of the task.
        score: the mean over its subsets and splits, 0 to 1.
        path: of mteb's result file.
        earlier: True when the file was there already and nothing was measured.
    """

    task: str
    adapter: str
    metric: str
    score: float
    path: Path
    earlier: bool


@dataclass(frozen=True, slots=True)
class Run:
    """How results are kept and shown.

    Attributes:
        output: where results are written.
        overwrite: measure again what has results already.
        progress: show bars.
    """

    output: Path
    overwrite: bool = False
    progress: bool = False


def run_tasks(
    tasks: "Sequence[AbsTask]",
    source: Source,
    measured: Measured,
    run: Run,
    on_score: Callable[[TaskScore], None] = lambda score: None,
) -> list[TaskScore]:
    """Measure each task, in order; `on_score` hears of each as soon as it is known.

    Raises:
        TaskNameError: a task does not fit the vectors, needs an adapter that is not there, or has the name
            of another.
        FetchError: a task's data cannot be fetched; names it. Tasks before it have their results.
        PolyvecError: an engine or server fails, or an input cannot be embedded.
    """
    import mteb

    _check_names(tasks)
    adapters = {task.metadata.name: _adapters(task, source, measured) for task in tasks}
    needed = sorted({adapter for some in adapters.values() for adapter in some})
    model = MeasuredModel(source, measured)
    cache = mteb.ResultCache(cache_path=run.output)
    scores: list[TaskScore] = []
    started = False
    for task in tasks:
        name = task.metadata.name
        found = None if run.overwrite else cache.load_task_result(name, model.mteb_model_meta)
        earlier = found is not None and _is_whole(found, task)
        if found is None or not earlier:
            with _loaded(task):
                # Data first: what cannot be fetched should not cost the minutes of an engine's start.
                if not started:
                    source.start(needed)
                    started = True
                found = _evaluate(task, model, cache, run)
        path = cache.get_task_result_path(name, model.mteb_model_meta)
        metric, score = str(task.metadata.main_score), float(found.get_score())
        used = ", ".join(adapters[name])
        scores.append(TaskScore(name, used, metric, score, path, earlier))
        on_score(scores[-1])
    return scores


def _evaluate(
    task: "AbsTask", model: MeasuredModel, cache: "ResultCache", run: Run
) -> "TaskResult":
    import mteb

    found = cache.load_task_result(task.metadata.name, model.mteb_model_meta)
    # mteb goes on with what is there, and takes what is whole without a look at the data's revision.
    goes_on = not run.overwrite and found is not None and _is_same_data(found, task)
    results = mteb.evaluate(
        model,
        task,
        cache=cache,
        co2_tracker=False,
        overwrite_strategy="only-missing" if goes_on else "always",
        encode_kwargs={"batch_size": _BATCH_SIZE, "show_progress_bar": run.progress},
        show_progress_bar=run.progress,
    )
    return results.task_results[0]


def _check_names(tasks: "Sequence[AbsTask]") -> None:
    """Results are filed by name: two tasks of one name would be one file."""
    name, times = Counter(task.metadata.name for task in tasks).most_common(1)[0]
    if times > 1:
        raise TaskNameError(
            f"{times} tasks have the name {name!r}, which their results are filed under. Rename a directory, or "
            "measure them into different outputs."
        )


def _adapters(task: "AbsTask", source: Source, measured: Measured) -> list[str]:
    """What the task, or each of the tasks that it is the mean of, is embedded with."""
    found = set[str]()
    for part in _parts(task):
        check_task(part, measured.representation)
        adapter = measured.choice.adapter_of(part.metadata)
        if adapter not in source.model.adapters:
            raise TaskNameError(
                f"{part.metadata.name} ({part.metadata.type}) is measured with the adapter {adapter!r}; "
                f"here are {list(source.model.adapters)}. Merge it (polyvec merge --task {adapter}), or pass "
                "--adapter with one of these."
            )
        found.add(adapter)
    return sorted(found)


def _is_whole(found: "TaskResult", task: "AbsTask") -> bool:
    """Whether nothing is left to measure."""
    return _is_same_data(found, task) and not found.get_missing_evaluations(task)


def _is_same_data(found: "TaskResult", task: "AbsTask") -> bool:
    return bool(found.is_mergeable(task))


def _parts(task: "AbsTask") -> "list[AbsTask]":
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    return list(task.metadata.tasks) if isinstance(task, AbsTaskAggregate) else [task]


@contextmanager
def _loaded(task: "AbsTask") -> Iterator[None]:
    """The task's data, fetched or read here, and forgotten afterwards."""
    parts = _parts(task)
    for part in parts:
        _fetch(part)
    try:
        yield
    finally:
        for part in parts:
            part.unload_data()


def _fetch(task: "AbsTask") -> None:
    dataset = task.metadata.dataset
    try:
        task.load_data()
    except OSError as error:
        # Hugging Face's errors of connections, repositories and offline mode are all of this kind.
        private = (
            "" if task.metadata.is_public else " It is private: its owner has to grant access."
        )
        raise FetchError(
            f"The data of {task.metadata.name} could not be fetched: {dataset['path']} at revision "
            f"{dataset.get('revision')}, from the Hugging Face hub ({type(error).__name__}: {error}).{private} "
            "Fetch it where there is a network and set HF_HOME to that cache, or measure a directory with "
            "--task-dir."
        ) from error
