"""A batch job on Ray Data: sections are read by tasks, chunks are embedded by actors that write their own files.

    sections ──▶ tasks: rows of missing chunks ──▶ actors: an engine, vectors, a file a chunk ──▶ counts

A chunk is one row of the dataset in a block of its own, so that Ray never splits one; vectors never cross its
object store. Whatever Ray does again after a process or a node was lost, a chunk has one file and counts once.
Knows neither formats nor what happens to a row; `serving/batch` does.
"""

import logging
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import ray
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources, TaskPoolStrategy
from ray.exceptions import RayError

from serving.batch.job import Job, plan_job
from serving.batch.keeper import StartEngine
from serving.batch.run import Run, clear_unfinished, open_run
from serving.batch.source import Plan
from serving.batch.summary import Progress, Summary
from serving.cluster.batch_engine import EngineStage
from serving.cluster.batch_reading import Done, Failed, Wanted, content, parcel, read_section
from serving.cluster.local import joins, ray_session
from serving.cluster.resources import Resources, resources_of
from serving.cluster.starting import start_replica_engine
from serving.engine.protocol import Engine
from serving.errors import EngineError, SettingsError
from serving.settings.batch import BatchSettings

_log = logging.getLogger(__name__)

# So many that an engine has work while the file of another chunk is written, and the next one is there.
_CHUNKS_AT_ONCE = 3
_CHUNKS_SENT = _CHUNKS_AT_ONCE + 1
# Each is a process that keeps its memory.
_READERS_PER_ENGINE = 2
# Rows that wait for an engine: what is read too early takes memory.
_WAITING_BYTES_PER_ENGINE = 128 * 1024 * 1024


def embed_corpus(
    source: str | Path,
    model: str | Path,
    output: str | Path,
    settings: BatchSettings,
    *,
    task: str | None = None,
    start: StartEngine | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Embed all rows of `source` into parquet files; continues what was interrupted.

    Args:
        source: JSONL, parquet, CSV, a directory of files, or a Hugging Face dataset on disk.
        model: what `polyvec merge` wrote: one task, or the directory of several.
        output: directory of the files; new, empty, or of the same job.
        settings: everything else.
        task: which of several.
        start: starts an engine, in an actor; None starts vLLM. Ray pickles it.
        on_progress: called when the job begins and whenever a file is done.

    Returns:
        What the job came to. A job that was finished already starts nothing, and has no new rows.

    Raises:
        CheckpointError: there is no merged checkpoint at `model`.
        TaskError: the task, prompt or dimension does not exist there.
        SettingsError: settings contradict each other, or those of the run that is to be continued.
        SourceError: the source cannot be read, or changed meanwhile.
        OutputError: the output is in use, holds something else, or cannot be written to.
        EngineError: the engine does not come up, or does not stay up.
    """
    job, plan = plan_job(source, model, task, output, settings)
    with open_run(job.output, job.identity) as run:
        tell = on_progress or _nothing
        tell(Progress.of(run))
        begun = time.monotonic()
        if not run.is_finished:
            with _ray(settings):
                _embed(job, plan, run, start, tell)
        summary = Summary.of(run, time.monotonic() - begun)
        if summary.new_rows or not job.output.summary_file.exists():
            with job.output.errors():
                clear_unfinished(job.output)
                summary.write(job.output.summary_file)
        return summary


def _embed(
    job: Job, plan: Plan, run: Run, start: StartEngine | None, tell: Callable[[Progress], None]
) -> None:
    """Do what is missing.

    Raises:
        SettingsError: the engines would wait for ever.
        PolyvecError: the job cannot go on.
    """
    cluster = ray.cluster_resources()
    resources = resources_of(job.settings, cluster)
    if (lacking := resources.lacking(cluster)) is not None:
        if not joins(job.settings.ray_address):
            raise SettingsError(
                f"{lacking}. Ask for less with engines, gpus_per_engine or cpus_per_engine."
            )
        # It may be one that grows when something waits.
        _log.warning("The job waits for the cluster to grow: %s.", lacking)
    if start is None:
        start = partial(_start_vllm, shares=resources.shares)
    try:
        # Closing the iterator ends Ray's tasks and actors, whatever ended the loop.
        with _silent(), closing(_outcomes(job, _wanted(plan, run), resources, start)) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, Failed):
                    raise outcome.error
                if run.note(outcome.index, outcome.tally):
                    tell(Progress.of(run))
    except RayError as error:
        raise EngineError(
            f"Ray could not go on ({type(error).__name__}: {error}). "
            "Run the same command again to continue; what is finished stays."
        ) from error
    assert run.is_finished  # every section gave each chunk that was wanted of it


def _outcomes(
    job: Job, wanted: list[Wanted], resources: Resources, start: StartEngine
) -> Generator[Done | Failed]:
    readers = _READERS_PER_ENGINE * resources.engines
    with DataContext.current(_context(resources)):
        dataset = (
            ray.data.from_items([parcel(one) for one in wanted], override_num_blocks=len(wanted))
            .flat_map(
                read_section,
                num_cpus=resources.reading_cpus,
                # Ray Data warns of a bound that fewer sections cannot reach.
                compute=TaskPoolStrategy(size=readers if readers <= len(wanted) else None),
            )
            .map(
                EngineStage,
                fn_constructor_args=(job, start),
                compute=ActorPoolStrategy(
                    size=resources.engines,
                    max_tasks_in_flight_per_actor=_CHUNKS_SENT,
                    max_concurrent_calls_per_actor=_CHUNKS_AT_ONCE,
                    enable_true_multi_threading=True,
                ),
                num_cpus=resources.cpus,
                num_gpus=resources.gpus,
            )
        )
        for row in dataset.iter_rows():
            yield content(row)


def _context(resources: Resources) -> DataContext:
    """Ray Data's options for this job alone."""
    context = DataContext.get_current().copy()
    # Whatever is larger than this becomes a block of its own: every chunk.
    context.target_max_block_size = 1
    context.execution_options.resource_limits = ExecutionResources(
        object_store_memory=_WAITING_BYTES_PER_ENGINE * resources.engines
    )
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # An engine may take longer to start than Ray Data waits for anything to happen.
    context.execution_no_progress_timeout_s = -1
    return context


@contextmanager
def _silent() -> Iterator[None]:
    """Ray Data tells its log file what it does, and not the terminal."""
    handlers = [one for one in logging.getLogger("ray.data").handlers if one.name == "console"]
    levels = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)


def _wanted(plan: Plan, run: Run) -> list[Wanted]:
    found = []
    for section in plan.sections:
        indices = range(section.first_chunk, section.first_chunk + section.num_chunks)
        if missing := tuple(index for index in indices if not run.done[index]):
            found.append(Wanted(section, missing))
    return found


@contextmanager
def _ray(settings: BatchSettings) -> Iterator[None]:
    """Ray: the caller's, a cluster's, or one for this job."""
    if ray.is_initialized():
        yield
        return
    with ray_session(settings.ray_address, environment={}, least_cpus=_cpus(settings)):
        yield


def _cpus(settings: BatchSettings) -> float:
    """CPUs for the engines that were asked for, and for a reader."""
    return (settings.engines or 1) * settings.cpus_per_engine + 1


async def _start_vllm(directory: Path, settings: BatchSettings, *, shares: int) -> Engine:
    # Ray sets it for this process, and the model's threads would inherit it.
    os.environ.pop("OMP_NUM_THREADS", None)
    return await start_replica_engine(directory, settings, shares)


def _nothing(progress: Progress) -> None:
    del progress
