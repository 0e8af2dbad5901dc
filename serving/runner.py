"""Engines of several tasks, started together, run from one background loop, and closed together.

Knows the pipelines and the loop; not what callers' arguments and containers look like.
"""

import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Self

from tqdm import tqdm

from serving.engine.protocol import Engine, Outcome
from serving.errors import EngineStoppedError, InputError, TaskError
from serving.inputs import Input
from serving.loop import LoopClosedError, LoopThread
from serving.pipeline import Pipeline, Request
from serving.prompts import Prompter
from serving.together import together

StartEngine = Callable[[Path], Awaitable[Engine]]

# Inputs handed on as one batch; small enough that a progress bar moves.
_CHUNK = 64
_CLOSED = "The embedder is closed. Load the checkpoint again."


class Runner:
    """One pipeline for each task."""

    def __init__(self, pipelines: dict[str, Pipeline], loop: LoopThread) -> None:
        self._pipelines = pipelines
        self._loop = loop
        # Also runs at interpreter exit: whoever forgets to close leaves no process behind.
        self._finalizer = weakref.finalize(self, _close, loop, list(pipelines.values()))

    @classmethod
    def start(cls, directories: dict[str, Path], start: StartEngine, *, parallel: bool) -> Self:
        """Start an engine for each directory, at once or one after the other; all or none.

        Raises:
            PolyvecError: a checkpoint or engine is not usable; engines that did come up are closed.
        """
        # Before the engines: a bad checkpoint should not cost a minute.
        prompters = {task: Prompter.load(path) for task, path in directories.items()}
        loop = LoopThread("polyvec")
        with ExitStack() as undo:
            undo.callback(lambda: loop.close(_nothing()))
            engines = loop.run(_start_all(directories, start, parallel=parallel))
            undo.pop_all()
        return cls({task: Pipeline(engines[task], prompters[task]) for task in directories}, loop)

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order they were given in."""
        return list(self._pipelines)

    def pipeline(self, task: str | None) -> Pipeline:
        """The pipeline of `task`; None stands for the only one.

        Raises:
            TaskError: there is no such task, or several and none was named.
        """
        if task is None:
            if len(self._pipelines) == 1:
                return next(iter(self._pipelines.values()))
            raise TaskError(
                "Task must be specified before encoding data: several are loaded. "
                f"Pass task, one of {self.tasks}."
            )
        if not isinstance(task, str) or task not in self._pipelines:
            raise TaskError(
                f"Invalid task: {task}. Must be one of {self.tasks}. "
                "Merge the adapter (polyvec merge --task) or load the directory that holds it."
            )
        return self._pipelines[task]

    def embed(
        self,
        inputs: Sequence[Input | InputError],
        task: str | None,
        request: Request,
        *,
        progress: bool = False,
    ) -> list[Outcome]:
        """Embed and wait; outcomes in order.

        Raises:
            TaskError: no input could satisfy the request.
            EngineError: the engine cannot answer, or was closed meanwhile.
        """
        pipeline = self.pipeline(task)
        pipeline.check(request)
        try:
            return self._loop.run(_embed(pipeline, inputs, request, progress=progress))
        except LoopClosedError as error:
            raise EngineStoppedError(_CLOSED) from error

    async def aembed(
        self, inputs: Sequence[Input | InputError], task: str | None, request: Request
    ) -> list[Outcome]:
        """`embed` for a coroutine of any loop; cancelling takes the inputs out of the engine."""
        pipeline = self.pipeline(task)
        pipeline.check(request)
        try:
            return await self._loop.wait(_embed(pipeline, inputs, request, progress=False))
        except LoopClosedError as error:
            raise EngineStoppedError(_CLOSED) from error

    def close(self) -> None:
        """Fail what is in flight, stop every engine and its processes; a second call does nothing."""
        self._finalizer()


async def _embed(
    pipeline: Pipeline, inputs: Sequence[Input | InputError], request: Request, *, progress: bool
) -> list[Outcome]:
    with tqdm(total=len(inputs), unit="input", disable=not progress) as bar:

        async def embed(chunk: Sequence[Input | InputError]) -> list[Outcome]:
            outcomes = await pipeline.embed(chunk, request)
            bar.update(len(chunk))
            return outcomes

        parts = await together(
            embed(inputs[at : at + _CHUNK]) for at in range(0, len(inputs), _CHUNK)
        )
    return [outcome for part in parts for outcome in part]


async def _start_all(
    directories: dict[str, Path], start: StartEngine, *, parallel: bool
) -> dict[str, Engine]:
    engines: dict[str, Engine] = {}
    async with AsyncExitStack() as undo:

        async def start_one(task: str, directory: Path) -> None:
            engines[task] = await start(directory)
            undo.push_async_callback(engines[task].close)

        if parallel:
            await together(start_one(task, path) for task, path in directories.items())
        else:
            # Each engine measures the accelerator's free memory while it starts.
            for task, path in directories.items():
                await start_one(task, path)
        undo.pop_all()
    return engines


async def _nothing() -> None:
    pass


def _close(loop: LoopThread, pipelines: list[Pipeline]) -> None:
    async def close_all() -> None:
        await together(pipeline.close() for pipeline in pipelines)

    loop.close(close_all())
