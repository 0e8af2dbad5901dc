"""The Python API: load merged checkpoints, pass texts and images, get vectors.

`encode_text` and `encode_image` take and give what the model card's do; `encode_query` and
`encode_document` what sentence-transformers users expect; `aencode` and `aembed` are for servers.
Engines run in a background thread's event loop, so all of these work from any thread. This module
knows no vLLM: `serving.engine.start` is imported when a checkpoint is loaded.
"""

import asyncio
import warnings
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import Tensor
from tqdm import tqdm

from serving.engine.protocol import Engine, Outcome, Want
from serving.errors import EngineStoppedError, InputError, PolyvecError, TaskError
from serving.inputs import Input, as_image, as_input, as_text
from serving.loop import LoopThread
from serving.manifest import Dtype, Manifest, find_tasks, read_manifest
from serving.pipeline import Pipeline, Request, pooled_or_raise
from serving.prompts import Prompter
from serving.settings import EngineSettings
from serving.vectors import Array, Precision, stacked, vectors_of, with_precision

# Inputs handed on as one batch; small enough that a progress bar moves.
_CHUNK = 64


class Embedder:
    """Embeds texts and images with every task that was loaded; made by `Embedder.load`.

    Use it as a context manager, or call `close`: engines are processes.
    """

    def __init__(self, pipelines: dict[str, Pipeline], loop: LoopThread) -> None:
        self._pipelines = pipelines
        self._loop = loop
        # Also runs at interpreter exit: whoever forgets to close leaves no process behind.
        self._finalizer = weakref.finalize(self, _close, dict(pipelines), loop)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        tasks: Sequence[str] | None = None,
        dtype: Dtype | None = None,
        settings: EngineSettings | None = None,
    ) -> Self:
        """Start an engine for each merged task at `path`.

        Args:
            path: what `polyvec merge` wrote: the directory of all tasks, or of one.
            tasks: which of them to load; None loads all.
            dtype: arithmetic of the model; None is the checkpoint's own.
            settings: everything else about the engines; None takes the defaults and `POLYVEC_*`.

        Raises:
            CheckpointError: there is no merged checkpoint at `path`.
            TaskError: a task that is not there.
            EngineStartError: vLLM is missing or did not come up.
        """
        from serving.engine.start import runs_on_cpu, start_engine

        directories = _chosen(find_tasks(Path(path)), tasks, Path(path))
        settings = EngineSettings() if settings is None else settings
        if dtype is not None:
            settings = settings.model_copy(update={"dtype": dtype})

        async def start(directory: Path) -> Engine:
            return await start_engine(directory, settings, num_engines=len(directories))

        return cls._start(directories, start, parallel=runs_on_cpu())

    @classmethod
    def from_engines(cls, directories: dict[str, Path], engines: dict[str, Engine]) -> Self:
        """Embed with engines that run already, one for each task's directory."""
        loop = LoopThread("polyvec")
        return cls(
            {task: _pipeline(path, engines[task]) for task, path in directories.items()}, loop
        )

    @classmethod
    def _start(
        cls, directories: dict[str, Path], start: Callable[[Path], Any], *, parallel: bool
    ) -> Self:
        loop = LoopThread("polyvec")
        try:
            engines = loop.run(_start_all(directories, start, parallel=parallel))
        except BaseException:
            loop.close()
            raise
        return cls(
            {task: _pipeline(path, engines[task]) for task, path in directories.items()}, loop
        )

    # What is loaded

    @property
    def tasks(self) -> list[str]:
        """The tasks that are loaded."""
        return list(self._pipelines)

    def manifest(self, task: str | None = None) -> Manifest:
        """What the checkpoint of `task` says of itself.

        Raises:
            TaskError: the task is not loaded.
        """
        return self._pipeline(task).manifest

    # As on the model card

    def encode_text(
        self,
        texts: str | list[str],
        task: str | None = None,
        max_length: int = 32768,
        batch_size: int = 8,
        return_multivector: bool = False,
        return_numpy: bool = False,
        truncate_dim: int | None = None,
        prompt_name: str | None = None,
    ) -> list[Tensor] | Tensor | Array:
        """Embed texts.

        Args:
            texts: one text, or a list.
            task: which adapter; may be left out when one task is loaded.
            max_length: tokens a text keeps, prefix included; the head is kept.
            batch_size: accepted for compatibility; the engine forms its own batches.
            return_multivector: one vector for each token instead of one for the text.
            return_numpy: an array instead of tensors; ignored, with a warning, for the multi-vectors of
                several texts, whose lengths differ.
            truncate_dim: keep this many dimensions, one of the model's `matryoshka_dims`.
            prompt_name: "query" or "passage"; None is "query".

        Returns:
            For a list: a list of float32 tensors [dim] ([token, multi_vector_dim] for multi-vectors), or an
            array [text, dim]. For one text: one tensor, or one array.

        Raises:
            TaskError: unknown task, prompt name or dimension.
            InputError: a text cannot be embedded; names its position.
            EngineError: the engine cannot answer.
        """
        _check_batch_size(batch_size)
        request = Request(
            want=_want(return_multivector),
            prompt_name=prompt_name,
            max_length=max_length,
            dim=self._matryoshka(task, truncate_dim),
        )
        return self._encode(texts, as_text, task, request, return_numpy=return_numpy)

    def encode_image(
        self,
        images: Any,
        task: str | None = None,
        batch_size: int = 8,
        return_multivector: bool = False,
        return_numpy: bool = False,
        truncate_dim: int | None = None,
        max_pixels: int | None = None,
    ) -> list[Tensor] | Tensor | Array:
        """Embed images.

        Args:
            images: one image, or a list; each a PIL image, a path, bytes of an image file or a
                `data:image/...;base64,` URI. URLs are not fetched.
            max_pixels: area an image is reduced to; None is the model's own.
            task: as in `encode_text`, and so are the others, the result and the errors.
            batch_size: see `encode_text`.
            return_multivector: see `encode_text`.
            return_numpy: see `encode_text`.
            truncate_dim: see `encode_text`.
        """
        _check_batch_size(batch_size)
        request = Request(
            want=_want(return_multivector),
            max_pixels=max_pixels or None,
            dim=self._matryoshka(task, truncate_dim),
        )
        return self._encode(images, as_image, task, request, return_numpy=return_numpy)

    # As in sentence-transformers

    def encode(
        self,
        inputs: Any,
        *,
        task: str | None = None,
        prompt_name: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool = False,
        precision: Precision = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        truncate_dim: int | None = None,
        return_multivector: bool = False,
        max_length: int | None = None,
        max_pixels: int | None = None,
    ) -> Any:
        """Embed texts and images, mixed as you like.

        Args:
            inputs: one input or a list; a string is text, an image is a PIL image, a `Path`, bytes, a data
                URI, or `{"image": ...}`.
            task: None is the task that is loaded, or "retrieval" when several are.
            prompt_name: prefix of the texts; None is the model's default, "query".
            batch_size: accepted for compatibility; the engine forms its own batches.
            show_progress_bar: show one.
            precision: "float32", or one bit per dimension as "binary" (int8) or "ubinary" (uint8).
            convert_to_numpy: arrays; otherwise a list of tensors.
            convert_to_tensor: one tensor; wins over `convert_to_numpy`.
            truncate_dim: keep this many dimensions, one of the model's `matryoshka_dims`.
            return_multivector: one vector for each token; always a list, one element an input.
            max_length: tokens a text keeps; None is the model's bound.
            max_pixels: area an image is reduced to; None is the model's own.

        Returns:
            [input, dim] for a list, [dim] for one input; unit length in float32.

        Raises:
            TaskError: unknown task, prompt name, dimension or precision.
            InputError: an input cannot be embedded; names its position.
            EngineError: the engine cannot answer.
        """
        _check_batch_size(batch_size)
        task = self._default_task(task)
        request = Request(
            want=_want(return_multivector),
            prompt_name=prompt_name,
            max_length=max_length,
            max_pixels=max_pixels,
            dim=self._matryoshka(task, truncate_dim),
        )
        several = isinstance(inputs, (list, tuple, np.ndarray))
        outcomes = self._loop_run(
            self._embed(
                [_try(as_input, item) for item in (inputs if several else [inputs])],
                task,
                request,
                progress=show_progress_bar,
            )
        )
        vectors = vectors_of(
            pooled_or_raise(outcomes, name_index=several), multi=return_multivector
        )
        if return_multivector:
            plain = (
                vectors
                if convert_to_tensor or not convert_to_numpy
                else [v.numpy() for v in vectors]
            )
            return plain if several else plain[0]
        table = with_precision(
            stacked(vectors, request.dim or self.manifest(task).hidden_size), precision
        )
        if not several:
            table = table[0]
        if convert_to_tensor:
            return table
        return table.numpy() if convert_to_numpy else list(table) if several else table

    def encode_query(self, inputs: Any, **options: Any) -> Any:
        """`encode` with the prompt "query"; same options."""
        return self.encode(inputs, **{"prompt_name": "query"} | options)

    def encode_document(self, inputs: Any, **options: Any) -> Any:
        """`encode` with the prompt "passage"; same options. Pages are documents too."""
        return self.encode(inputs, **{"prompt_name": "passage"} | options)

    # For servers

    async def aencode(
        self,
        inputs: Sequence[object],
        task: str | None = None,
        *,
        prompt_name: str | None = None,
        return_multivector: bool = False,
        truncate_dim: int | None = None,
        max_length: int | None = None,
        max_pixels: int | None = None,
    ) -> list[Tensor]:
        """Embed a mixed list from a coroutine; arguments as in `encode`.

        Cancelling takes the inputs out of the engine.

        Returns:
            One float32 tensor an input, [dim] or [token, multi_vector_dim].

        Raises:
            InputError: the first input that cannot be embedded, by position. The others are computed all
                the same; use `aembed` to have them.
            TaskError: unknown task, prompt name or dimension.
            EngineError: the engine cannot answer.
        """
        request = Request(
            want=_want(return_multivector),
            prompt_name=prompt_name,
            max_length=max_length,
            max_pixels=max_pixels,
            dim=self._matryoshka(task, truncate_dim),
        )
        outcomes = await self.aembed(inputs, task, request)
        return vectors_of(pooled_or_raise(outcomes, name_index=True), multi=return_multivector)

    async def aembed(
        self, inputs: Sequence[object], task: str | None, request: Request
    ) -> list[Outcome]:
        """Embed a mixed list; each input's own outcome, vectors or `InputError`, in order.

        Raises:
            TaskError: no input could satisfy the request.
            EngineError: the engine cannot answer.
        """
        self._check_open()
        items = [_try(as_input, item) for item in inputs]
        return await asyncio.wrap_future(self._loop.submit(self._embed(items, task, request)))

    # Closing

    def close(self) -> None:
        """Stop every engine and its processes; a second call does nothing."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Inside

    def _encode(
        self,
        items: Any,
        convert: Callable[[Any], Input],
        task: str | None,
        request: Request,
        *,
        return_numpy: bool,
    ) -> list[Tensor] | Tensor | Array:
        several = isinstance(items, (list, tuple))
        inputs = [_try(convert, item) for item in (items if several else [items])]
        multi = request.want.multi
        if return_numpy and multi and len(inputs) > 1:
            warnings.warn(
                "return_numpy is ignored: the multi-vectors of several inputs differ in length.",
                UserWarning,
                stacklevel=3,
            )
            return_numpy = False
        outcomes = self._loop_run(self._embed(inputs, task, request))
        vectors = vectors_of(pooled_or_raise(outcomes, name_index=several), multi=multi)
        if not several:
            return vectors[0].numpy() if return_numpy else vectors[0]
        if not return_numpy:
            return vectors
        return stacked(vectors, request.dim or self.manifest(task).hidden_size).numpy()

    async def _embed(
        self,
        inputs: list[Input | InputError],
        task: str | None,
        request: Request,
        *,
        progress: bool = False,
    ) -> list[Outcome]:
        pipeline = self._pipeline(task)
        pipeline.check(request)
        with tqdm(total=len(inputs), unit="input", disable=not progress) as bar:

            async def embed(chunk: list[Input | InputError]) -> list[Outcome]:
                outcomes = await pipeline.embed(chunk, request)
                bar.update(len(chunk))
                return outcomes

            chunks = [inputs[at : at + _CHUNK] for at in range(0, len(inputs), _CHUNK)]
            try:
                async with asyncio.TaskGroup() as group:
                    parts = [group.create_task(embed(chunk)) for chunk in chunks]
            except* PolyvecError as failures:
                raise failures.exceptions[0] from None
        return [outcome for part in parts for outcome in part.result()]

    def _pipeline(self, task: str | None) -> Pipeline:
        if task is None:
            if len(self._pipelines) == 1:
                return next(iter(self._pipelines.values()))
            raise TaskError(
                "Task must be specified before encoding data: several are loaded. "
                f"Pass task, one of {self.tasks}."
            )
        if task not in self._pipelines:
            raise TaskError(
                f"Invalid task: {task}. Must be one of {self.tasks}. "
                "Merge the adapter (polyvec merge --task) or load the directory that holds it."
            )
        return self._pipelines[task]

    def _default_task(self, task: str | None) -> str | None:
        if task is None and len(self._pipelines) > 1 and "retrieval" in self._pipelines:
            return "retrieval"
        return task

    def _matryoshka(self, task: str | None, truncate_dim: int | None) -> int | None:
        if not truncate_dim:
            return None
        dims = self._pipeline(task).manifest.matryoshka_dims
        if truncate_dim not in dims:
            raise TaskError(f"Invalid truncate_dim: {truncate_dim}. Must be one of {list(dims)}.")
        return truncate_dim

    def _loop_run(self, coroutine: Any) -> list[Outcome]:
        if not self._finalizer.alive:
            coroutine.close()
            self._check_open()
        outcomes: list[Outcome] = self._loop.run(coroutine)
        return outcomes

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise EngineStoppedError("The embedder is closed. Load the checkpoint again.")


def _pipeline(directory: Path, engine: Engine) -> Pipeline:
    manifest = read_manifest(directory)
    return Pipeline(engine, Prompter(directory, manifest), manifest)


def _want(return_multivector: bool) -> Want:
    return Want(single=not return_multivector, multi=return_multivector)


def _try(convert: Callable[[Any], Input], item: object) -> Input | InputError:
    try:
        return convert(item)
    except InputError as error:
        return error


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise TaskError(f"batch_size must be at least 1, not {batch_size}.")


def _chosen(found: dict[str, Path], tasks: Sequence[str] | None, path: Path) -> dict[str, Path]:
    if tasks is None:
        return found
    if isinstance(tasks, str):
        tasks = [tasks]
    missing = [task for task in tasks if task not in found]
    if missing or not tasks:
        raise TaskError(
            f"{path} holds the tasks {sorted(found)}, not {missing or 'none'}. "
            "Merge what is missing: polyvec merge SOURCE OUT --task TASK."
        )
    return {task: found[task] for task in tasks}


async def _start_all(
    directories: dict[str, Path], start: Callable[[Path], Any], *, parallel: bool
) -> dict[str, Engine]:
    """Start all engines, or none: those that came up are stopped when another does not."""
    engines: dict[str, Engine] = {}

    async def start_one(task: str, directory: Path) -> None:
        engines[task] = await start(directory)

    try:
        if parallel:
            async with asyncio.TaskGroup() as group:
                for task, directory in directories.items():
                    group.create_task(start_one(task, directory))
        else:
            # Each engine measures the accelerator's free memory while it starts.
            for task, directory in directories.items():
                await start_one(task, directory)
    except BaseException as failure:
        for engine in engines.values():
            await engine.close()
        if isinstance(failure, BaseExceptionGroup):
            raise failure.exceptions[0] from None
        raise
    return engines


def _close(pipelines: dict[str, Pipeline], loop: LoopThread) -> None:
    async def close_all() -> None:
        await asyncio.gather(*(pipeline.close() for pipeline in pipelines.values()))

    loop.run(close_all())
    loop.close()
