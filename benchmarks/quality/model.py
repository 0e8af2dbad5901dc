"""A model as mteb wants one, over a `Source`: texts, pages and both, single vectors and multi-vectors.

Satisfies mteb's `EncoderProtocol` by its shape; mteb's own search wraps it for retrieval. It knows how an
input of mteb becomes a vector; not which tasks are run, nor where results go.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.quality.adapters import Choice
from benchmarks.quality.errors import TaskNameError
from benchmarks.quality.inputs import Pair, embedded, fused
from benchmarks.quality.representation import Representation, score_table
from benchmarks.quality.source import Ask, Model, Source

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta
    from mteb.types import Array, BatchedInput, PromptType
    from torch.utils.data import DataLoader

PAPER_MAX_PIXELS = 37_788_800
"""Area to which the benchmarks of the model's paper reduce a page (mteb's definition of the model has it too)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is measured of a model: the settings that change figures.

    Attributes:
        representation: of its vectors.
        choice: of adapters and prompts.
        max_pixels: area to which pages are reduced.
    """

    representation: Representation
    choice: Choice
    max_pixels: int

    def differing(self) -> dict[str, str | int]:
        """The settings that are not those of the paper, by name; results are filed under them."""
        kept, choice = self.representation, self.choice
        named = {
            "vectors": None if kept.vectors == "single" else kept.vectors,
            "dimensions": kept.dimensions,
            "precision": None if kept.precision == "float32" else kept.precision,
            "max_pixels": None if self.max_pixels == PAPER_MAX_PIXELS else self.max_pixels,
            "adapter": choice.adapter,
            "query_prompt": choice.query_prompt,
            "document_prompt": choice.document_prompt,
        }
        return {name: value for name, value in named.items() if value is not None}


class MeasuredModel:
    """The vectors of a source, as mteb asks for them."""

    def __init__(self, source: Source, measured: Measured) -> None:
        self._source = source
        self._measured = measured
        self.mteb_model_meta: ModelMeta = model_meta(source.model, measured)

    def encode(
        self,
        inputs: "DataLoader[BatchedInput]",
        *,
        task_metadata: "TaskMetadata",
        hf_split: str,
        hf_subset: str,
        prompt_type: "PromptType | None" = None,
        **kwargs: Any,
    ) -> "Array":
        """Embed what mteb gives.

        Args:
            inputs: batches with `text`, `image` or both.
            task_metadata: decides the adapter.
            hf_split: not needed.
            hf_subset: not needed.
            prompt_type: decides the prefix of texts.
            kwargs: of mteb's own loaders.

        Returns:
            float32 [input, dim]; for multi-vectors a list of [token, dim], as mteb's own models give.
        """
        del hf_split, hf_subset, kwargs
        kept = self._measured.representation
        adapter = self._measured.choice.adapter_of(task_metadata)
        is_document = prompt_type is not None and prompt_type.value == "document"
        prompt = self._measured.choice.prompt_of(adapter, is_document=is_document)
        ask = Ask(adapter, prompt, kept.vectors, kept.dimensions)
        vectors = [
            kept.quantised(fused(parts))
            for parts in embedded(_pairs(inputs), lambda items: self._source.embed(items, ask))
        ]
        if kept.vectors == "multi":
            return vectors  # type: ignore[return-value] # mteb's type has no name for ragged ones
        return torch.stack(vectors).numpy()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """`score_table` of what `encode` gave."""
        return score_table(_rows(embeddings1), _rows(embeddings2))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """`score_table` of row i with row i alone, [row]."""
        pairs = zip(_rows(embeddings1), _rows(embeddings2), strict=True)
        return torch.stack([score_table([one], [other])[0, 0] for one, other in pairs])


def model_meta(model: Model, measured: Measured) -> "ModelMeta":
    """What mteb writes beside results; its name, revision and settings are the results' folder."""
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    kept = measured.representation
    multi = kept.vectors == "multi"
    dim = model.multi_vector_dim if multi else kept.dimensions or model.dim
    if dim is None:
        raise TaskNameError(
            f"{model.name} was merged without a projector and has no multi-vectors. "
            "Measure --vectors single."
        )
    differing = measured.differing() | ({"dtype": model.dtype} if model.dtype else {})
    return ModelMeta.create_empty(
        overwrites={
            "name": model.name,
            "revision": model.revision,
            "modalities": ["text", "image"],
            "max_tokens": model.max_tokens,
            "embed_dim": dim,
            "similarity_fn_name": ScoringFunction.MAX_SIM if multi else ScoringFunction.COSINE,
            "model_type": ["late-interaction"] if multi else ["dense"],
            "framework": ["PyTorch"],
            "use_instructions": True,
            "experiment_kwargs": differing or None,
        }
    )


def _rows(embeddings: Any) -> list[Tensor]:
    return [torch.as_tensor(row) for row in embeddings]


def _pairs(inputs: "DataLoader[BatchedInput]") -> Iterator[Pair]:
    for batch in inputs:
        texts, images = batch.get("text"), batch.get("image")
        if texts is None and images is None:
            raise TaskNameError(
                f"The task gives {sorted(batch)}; text and image can be embedded here."
            )
        count = len(texts if texts is not None else images or [])
        yield from zip(texts or [None] * count, images or [None] * count, strict=True)
