"""Run tasks with mteb, which scores them and writes their results.

Knows the order of things: what can be refused at once, then the data, then engines, then the measuring. Results
are `OUTPUT/results/<model>/<revision>/<task>.json`, with the settings that differ from the paper's as a folder
`experiments/<settings>` between, as mteb files and reads them.
"""

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
        TaskNameError: a task does not fit the vectors, or needs an adapter that is not there.
        FetchError: a task's data cannot be fetched; names it. Tasks before it have their results.
        PolyvecError: an engine or server fails, or an input cannot be embedded.
    """
    import mteb

    adapters = {task.metadata.name: _adapter(task, source, measured) for task in tasks}
    model = MeasuredModel(source, measured)
    cache = mteb.ResultCache(cache_path=run.output)
    scores: list[TaskScore] = []
    started = False
    for task in tasks:
        name = task.metadata.name
        earlier = None if run.overwrite else _earlier(cache, task, model)
        if earlier is None:
            with _loaded(task):
                # Data first: what cannot be fetched should not cost the minutes of an engine's start.
                if not started:
                    source.start(sorted(set(adapters.values())))
                    started = True
                result = _evaluate(task, model, cache, run)
        else:
            result = earlier
        path = cache.get_task_result_path(name, model.mteb_model_meta)
        metric, score = str(task.metadata.main_score), float(result.get_score())
        scores.append(TaskScore(name, adapters[name], metric, score, path, earlier is not None))
        on_score(scores[-1])
    return scores


def _evaluate(
    task: "AbsTask", model: MeasuredModel, cache: "ResultCache", run: Run
) -> "TaskResult":
    import mteb

    results = mteb.evaluate(
        model,
        task,
        cache=cache,
        co2_tracker=False,
        overwrite_strategy="always" if run.overwrite or _is_local(task) else "only-missing",
        encode_kwargs={"batch_size": _BATCH_SIZE, "show_progress_bar": run.progress},
        show_progress_bar=run.progress,
    )
    return results.task_results[0]


def _adapter(task: "AbsTask", source: Source, measured: Measured) -> str:
    check_task(task, measured.representation)
    adapter = measured.choice.adapter_of(task.metadata)
    if adapter not in source.model.adapters:
        raise TaskNameError(
            f"{task.metadata.name} ({task.metadata.type}) is measured with the adapter {adapter!r}; "
            f"here are {list(source.model.adapters)}. Merge it (polyvec merge --task {adapter}), or pass "
            "--adapter with one of these."
        )
    return adapter


def _earlier(cache: "ResultCache", task: "AbsTask", model: MeasuredModel) -> "TaskResult | None":
    """The results of a run before this one, when they are of this data and whole."""
    if _is_local(task):
        # A directory changes; mteb does not look at the revision of what is whole.
        return None
    found = cache.load_task_result(task.metadata.name, model.mteb_model_meta)
    if found is None or not found.is_mergeable(task) or found.get_missing_evaluations(task):
        return None
    return found


def _is_local(task: "AbsTask") -> bool:
    return type(task).__module__.startswith("benchmarks.")


@contextmanager
def _loaded(task: "AbsTask") -> Iterator[None]:
    """The task's data, fetched or read here, and forgotten afterwards."""
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    parts = task.metadata.tasks if isinstance(task, AbsTaskAggregate) else [task]
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
