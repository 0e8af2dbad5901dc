"""Vectors from checkpoints on this machine, through `serving.Embedder`."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from PIL import Image
from torch import Tensor

from benchmarks.quality.source import Ask, Item, Model, model_name, model_revision
from serving import Embedder, EngineSettings, Text
from serving.engine.protocol import Pooled, Want
from serving.errors import EngineStoppedError
from serving.identity import joint_digest
from serving.manifest import Dtype, Manifest, find_tasks, read_manifest
from serving.pipeline import Request, pooled_or_raise
from serving.settings import load_settings

Load = Callable[[Path, Sequence[str], EngineSettings], Embedder]
"""Starts engines for some tasks of a directory."""

_TEMPLATE_TOKENS = 64
"""Room for what stands around a page in its prompt."""


def load_embedder(path: Path, tasks: Sequence[str], settings: EngineSettings) -> Embedder:
    """Real engines."""
    return Embedder.load(path, tasks=tasks, settings=settings)


@dataclass(slots=True)
class LocalSource:
    """The tasks of one directory that `polyvec merge` has written; a `Source`.

    Attributes:
        path: the directory.
        model: read from its manifests.
        settings: of the engines.
        max_pixels: area to which a page is reduced; None is the checkpoint's own.
        load: starts the engines; a test gives others.
    """

    path: Path
    model: Model
    settings: EngineSettings
    max_pixels: int | None = None
    load: Load = load_embedder
    _embedder: Embedder | None = None

    @classmethod
    def of(
        cls,
        path: Path,
        *,
        dtype: Dtype | None = None,
        max_pixels: int | None = None,
        load: Load = load_embedder,
    ) -> Self:
        """Read the manifests; nothing is started yet.

        Raises:
            CheckpointError: there is no merged checkpoint at `path`.
            SettingsError: a `POLYVEC_*` variable is not valid.
        """
        manifests = {task: read_manifest(found) for task, found in find_tasks(path).items()}
        first = next(iter(manifests.values()))
        settings = load_settings(None, dtype=dtype)
        if max_pixels is not None:
            settings = _for_pages(settings, max_pixels, first)
        # Of the environment too: whatever changes figures is part of what they are filed under.
        other = settings.dtype if settings.dtype != first.dtype else None
        model = replace(_model(manifests), dtype=other)
        return cls(path, model, settings, max_pixels, load)

    def start(self, adapters: Sequence[str]) -> None:
        """Start an engine for each adapter; see `Source.start`."""
        self.close()
        self._embedder = self.load(self.path, list(adapters), self.settings)

    def embed(self, items: Sequence[Item], ask: Ask) -> list[Tensor]:
        """Embed; see `Source.embed`."""
        vectors: list[Tensor] = self._loaded().encode(
            _inputs(items),
            task=ask.adapter,
            prompt_name=ask.prompt,
            return_multivector=ask.vectors == "multi",
            truncate_dim=ask.dimensions,
            max_pixels=self.max_pixels,
            convert_to_numpy=False,
        )
        return vectors

    def pooled(self, items: Sequence[Item], adapter: str, prompt: str, want: Want) -> list[Pooled]:
        """Single vectors, multi-vectors or both of each item, from one forward pass.

        Raises:
            PolyvecError: an item cannot be embedded, or there is no answer.
        """
        request = Request(want, prompt_name=prompt, max_pixels=self.max_pixels)
        outcomes = asyncio.run(self._loaded().aembed(_inputs(items), adapter, request))
        return pooled_or_raise(outcomes, name_index=True)

    def close(self) -> None:
        """Stop the engines; a second call does nothing."""
        if self._embedder is not None:
            self._embedder.close()
            self._embedder = None

    def _loaded(self) -> Embedder:
        if self._embedder is None:
            raise EngineStoppedError("No engine is loaded. Call start first.")
        return self._embedder


def _inputs(items: Sequence[Item]) -> list[Text | Image.Image]:
    # A string of the data is a text, also one that reads like a data URI.
    return [Text(item) if isinstance(item, str) else item for item in items]


def _for_pages(settings: EngineSettings, max_pixels: int, manifest: Manifest) -> EngineSettings:
    """Settings of engines that take pages of `max_pixels`: they refuse what they were not loaded for."""
    num_tokens = max_pixels // manifest.image.token_edge**2 + _TEMPLATE_TOKENS
    larger: dict[str, int] = {}
    if settings.max_pixels is None:
        larger["max_pixels"] = max_pixels
    if settings.max_model_tokens is None and num_tokens > manifest.max_text_tokens:
        larger["max_model_tokens"] = num_tokens
    return settings.model_copy(update=larger)


def _model(manifests: dict[str, Manifest]) -> Model:
    first = next(iter(manifests.values()))
    source = first.merge.source
    return Model(
        name=model_name(source.name),
        revision=model_revision(source.revision, joint_digest(manifests.values())),
        adapters=tuple(sorted(manifests)),
        dim=first.hidden_size,
        dimensions=first.matryoshka_dims,
        multi_vector_dim=first.multi_vector_dim,
        max_pixels=first.image.max_pixels,
        max_tokens=first.max_text_tokens,
    )
