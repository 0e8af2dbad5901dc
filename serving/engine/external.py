"""Pool the ALL-token output of an unmodified engine: the reference path.

The functions are those of `pooling/`; this module only says which span belongs to which kind of prompt
and reads the projector from the checkpoint. It does not know what computed the token embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pooling import (
    Projector,
    Span,
    mean_vector,
    multi_vector,
    project,
    require_finite,
    single_vector,
    vision_span,
    whole,
)
from serving.engine.protocol import ImagePrompt, Pooled, Prompt, TextPrompt, Want
from serving.errors import CheckpointError, TaskError
from serving.manifest import Manifest

PROJECTOR_NAME = "multi_vector_projector.safetensors"


@dataclass(frozen=True, slots=True)
class ExternalPooler:
    """Turns one prompt's token embeddings into the vectors that are wanted."""

    manifest: Manifest
    projector: Projector | None

    def check(self, want: Want) -> None:
        """Refuse what this checkpoint cannot give, before anything is computed.

        Raises:
            TaskError: multi-vectors of a checkpoint without projector.
        """
        if want.multi and self.projector is None:
            raise TaskError(
                f"The checkpoint of task {self.manifest.task!r} has no multi_vector_projector, "
                "so it gives single vectors only."
            )

    def pool(
        self, prompt: Prompt, token_ids: Sequence[int], token_embeddings: Tensor, want: Want
    ) -> Pooled:
        """Pool float [token, hidden] of one prompt; `token_ids` are the expanded prompt's.

        Raises:
            PoolingError: a value is not finite, or the ids hold no image where there should be one.
        """
        single = multi = None
        if want.single:
            single = self._single(prompt, token_ids, token_embeddings, want)
            require_finite(single)
        if want.multi and self.projector is not None:
            token_vectors = multi_vector if want.normalized else project
            multi = token_vectors(token_embeddings, self.projector)
            require_finite(multi)
        return Pooled(token_ids=tuple(token_ids), single=single, multi=multi)

    def _single(
        self, prompt: Prompt, token_ids: Sequence[int], token_embeddings: Tensor, want: Want
    ) -> Tensor:
        one_vector = single_vector if want.normalized else mean_vector
        if isinstance(prompt, TextPrompt) and prompt.spans is not None:
            return torch.stack([one_vector(token_embeddings, span) for span in prompt.spans])
        return one_vector(token_embeddings, self._span(prompt, token_ids))

    def _span(self, prompt: Prompt, token_ids: Sequence[int]) -> Span:
        match prompt:
            case TextPrompt():
                return whole(len(token_ids))
            case ImagePrompt():
                ids = self.manifest.special_token_ids
                span = vision_span(
                    token_ids, vision_start_id=ids.vision_start, vision_end_id=ids.vision_end
                )
                assert span is not None  # the template was checked when the tokenizer was loaded
                return span
            case _:
                assert_never(prompt)


def load_pooler(directory: Path, manifest: Manifest) -> ExternalPooler:
    """Read the projector beside the weights, in float32; None where the manifest has no multi-vectors.

    Raises:
        CheckpointError: the file is missing, unreadable, or not of the manifest's shape.
    """
    if manifest.multi_vector_dim is None:
        return ExternalPooler(manifest, None)
    path = directory / PROJECTOR_NAME
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}). Merge the checkpoint again."
        ) from error
    expected = (manifest.multi_vector_dim, manifest.hidden_size)
    weight = tensors.get("weight")
    if weight is None or tuple(weight.shape) != expected:
        got = "no tensor 'weight'" if weight is None else f"shape {tuple(weight.shape)}"
        raise CheckpointError(f"{path} has {got}, expected {expected}. Merge the checkpoint again.")
    bias = tensors.get("bias")
    return ExternalPooler(
        manifest,
        Projector(
            weight=weight.to(torch.float32),
            bias=None if bias is None else bias.to(torch.float32),
        ),
    )
