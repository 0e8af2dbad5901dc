"""The Python API: load merged checkpoints, pass texts and images, get vectors.

`encode_text` and `encode_image` take and give what the model card's do; `encode_query` and
`encode_document` what sentence-transformers users expect; `aencode` and `aembed` are for servers.
All of these work from any thread. This module knows arguments and containers; `serving.runner` knows
how engines are run, and `serving.engine.start`, imported when a checkpoint is loaded, knows vLLM.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image
from torch import Tensor

from serving.engine.protocol import Engine, Outcome, Want
from serving.errors import InputError, TaskError
from serving.inputs import Input, as_image, as_input, as_text
from serving.loop import LoopThread
from serving.manifest import Dtype, Manifest, find_tasks
from serving.pipeline import Pipeline, Request, pooled_or_raise
from serving.prompts import Prompter
from serving.runner import Runner
from serving.settings import EngineSettings, load_settings
from serving.vectors import Array, Precision, check_precision, stacked, vectors_of, with_precision


class Embedder:
    """Embeds texts and images with every task that was loaded; made by `Embedder.load`.

    Use it as a context manager, or call `close`: engines are processes.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

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
            SettingsError: a setting or `POLYVEC_*` variable is not valid.
            EngineStartError: vLLM is missing or did not come up.
        """
        from serving.engine.start import runs_on_cpu, start_engine

        directories = find_tasks(path, tasks)
        checked = load_settings(settings, dtype=dtype)

        async def start(directory: Path) -> Engine:
            return await start_engine(directory, checked, num_engines=len(directories))

        return cls(Runner.start(directories, start, parallel=runs_on_cpu()))

    @classmethod
    def from_engines(cls, directories: dict[str, Path], engines: dict[str, Engine]) -> Self:
        """Embed with engines that run already, one for each task's directory."""
        pipelines = {
            task: Pipeline(engines[task], Prompter.load(path)) for task, path in directories.items()
        }
        return cls(Runner(pipelines, LoopThread("polyvec")))

    @property
    def tasks(self) -> list[str]:
        """The tasks that are loaded."""
        return self._runner.tasks

    def manifest(self, task: str | None = None) -> Manifest:
        """What the checkpoint of `task` says of itself.

        Raises:
            TaskError: the task is not loaded.
        """
        return self._runner.pipeline(task).manifest

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
            max_length: tokens a text keeps, prefix included; the head is kept. The model's own bound or
                more means as many as the engine was loaded for.
            batch_size: accepted for compatibility; the engine forms its own batches.
            return_multivector: one vector for each token instead of one for the text.
            return_numpy: an array instead of tensors; ignored, with a warning, for the multi-vectors of
                several texts, whose lengths differ.
            truncate_dim: keep this many dimensions, one of the model's `matryoshka_dims`; as in the
                original, it does nothing to multi-vectors.
            prompt_name: "query" or "passage"; None is "query".

        Returns:
            For a list: a list of float32 tensors [dim] ([token, multi_vector_dim] for multi-vectors), or an
            array [text, dim]. For one text: one tensor, or one array.

        Raises:
            TaskError: unknown task, prompt name or dimension, or an argument of the wrong kind.
            InputError: a text cannot be embedded; names its position.
            EngineError: the engine cannot answer, or was closed.
        """
        _check_batch_size(batch_size)
        request = self._request(
            task,
            return_multivector,
            truncate_dim,
            prompt_name=prompt_name,
            max_length=max_length,
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
        request = self._request(
            task, return_multivector, truncate_dim, max_pixels=max_pixels or None
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
            TaskError: unknown task, prompt name, dimension or precision, or options that exclude each other.
            InputError: an input cannot be embedded; names its position.
            EngineError: the engine cannot answer, or was closed.
        """
        _check_batch_size(batch_size)
        check_precision(precision, multi=return_multivector)
        if return_multivector and truncate_dim:
            raise TaskError("truncate_dim is for single vectors; multi-vectors have one dimension.")
        task = self._default_task(task)
        request = self._request(
            task,
            return_multivector,
            truncate_dim,
            prompt_name=prompt_name,
            max_length=max_length,
            max_pixels=max_pixels,
        )
        several = isinstance(inputs, (list, tuple, np.ndarray))
        items = [_try(as_input, item) for item in (inputs if several else [inputs])]
        outcomes = self._runner.embed(items, task, request, progress=show_progress_bar)
        pooled = pooled_or_raise(outcomes, name_index=several)
        vectors = vectors_of(pooled, multi=return_multivector)
        as_numpy = convert_to_numpy and not convert_to_tensor
        if return_multivector:
            ragged = [vector.numpy() for vector in vectors] if as_numpy else vectors
            return ragged if several else ragged[0]
        table = with_precision(stacked(vectors, self._dim(task, request)), precision)
        if not several:
            table = table[0]
        if as_numpy:
            return table.numpy()
        return list(table) if several and not convert_to_tensor else table

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
            TaskError: unknown task, prompt name or dimension, or `inputs` is not a list.
            EngineError: the engine cannot answer, or was closed.
        """
        request = self._request(
            task,
            return_multivector,
            truncate_dim,
            prompt_name=prompt_name,
            max_length=max_length,
            max_pixels=max_pixels,
        )
        outcomes = await self.aembed(inputs, task, request)
        return vectors_of(pooled_or_raise(outcomes, name_index=True), multi=return_multivector)

    async def aembed(
        self, inputs: Sequence[object], task: str | None, request: Request
    ) -> list[Outcome]:
        """Embed a mixed list; each input's own outcome, vectors or `InputError`, in order.

        Raises:
            TaskError: no input could satisfy the request, or `inputs` is not a list.
            EngineError: the engine cannot answer, or was closed.
        """
        if isinstance(inputs, (str, bytes, Path, Image.Image, dict)):
            # A string is a sequence too: of its characters.
            raise TaskError(f"inputs must be a list, not {type(inputs).__name__}. Pass [input].")
        items = [_try(as_input, item) for item in inputs]
        return await self._runner.aembed(items, task, request)

    # Closing

    def close(self) -> None:
        """Fail what is in flight, stop every engine and its processes; a second call does nothing."""
        self._runner.close()

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

    def _request(
        self,
        task: str | None,
        return_multivector: bool,
        truncate_dim: int | None,
        *,
        prompt_name: str | None = None,
        max_length: int | None = None,
        max_pixels: int | None = None,
    ) -> Request:
        dims = self.manifest(task).matryoshka_dims
        if truncate_dim and truncate_dim not in dims:
            raise TaskError(f"Invalid truncate_dim: {truncate_dim}. Must be one of {list(dims)}.")
        return Request(
            want=Want(
                single=not return_multivector, multi=return_multivector, dim=truncate_dim or None
            ),
            prompt_name=prompt_name,
            max_length=max_length,
            max_pixels=max_pixels,
        )

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
        outcomes = self._runner.embed(inputs, task, request)
        vectors = vectors_of(pooled_or_raise(outcomes, name_index=several), multi=multi)
        if not several:
            return vectors[0].numpy() if return_numpy else vectors[0]
        if not return_numpy:
            return vectors
        return stacked(vectors, self._dim(task, request)).numpy()

    def _dim(self, task: str | None, request: Request) -> int:
        return request.want.dim or self.manifest(task).hidden_size

    def _default_task(self, task: str | None) -> str | None:
        if task is None and len(self.tasks) > 1 and "retrieval" in self.tasks:
            return "retrieval"
        return task


def _try(convert: Callable[[Any], Input], item: object) -> Input | InputError:
    try:
        return convert(item)
    except InputError as error:
        return error


def _check_batch_size(batch_size: int) -> None:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise TaskError(f"batch_size must be an int of at least 1, not {batch_size!r}.")
