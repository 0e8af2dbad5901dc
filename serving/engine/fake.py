"""An engine without a model, whose vectors a test or a load generator can compute from the input.

Real prompts, spans, pooling, limits and errors; only the token embeddings are a formula. It is for
everything that is written against `Engine` and does not test the model itself.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

import torch
from jaxtyping import Float32
from torch import Tensor

from pooling import Projector
from serving.engine.external import ExternalPooler
from serving.engine.protocol import ImagePrompt, Outcome, Pooled, Prompt, TextPrompt, Want
from serving.errors import EngineStoppedError, InputError
from serving.images import ImageLimits, count_image_tokens, decode_image
from serving.manifest import Manifest, read_manifest
from serving.settings import EngineSettings


def fake_token_embeddings(
    token_ids: Sequence[int], hidden_size: int
) -> Float32[Tensor, "token hidden"]:
    """`x[p, j] = sin((id[p] + 1) * (j + 1))`, computed in float64: a token's row depends on its id alone."""
    ids = torch.tensor(token_ids, dtype=torch.float64)
    columns = torch.arange(1, hidden_size + 1, dtype=torch.float64)
    return torch.sin((ids[:, None] + 1) * columns).to(torch.float32)


def fake_projector(dim: int, hidden_size: int) -> Projector:
    """Keeps the first `dim` of `hidden_size` columns."""
    return Projector(weight=torch.eye(dim, hidden_size), bias=None)


class FakeEngine:
    """Answers at once with `fake_token_embeddings`, pooled as the real engine's output is."""

    def __init__(self, directory: Path, settings: EngineSettings | None = None) -> None:
        settings = EngineSettings() if settings is None else settings
        self.manifest: Manifest = read_manifest(directory)
        dim = self.manifest.multi_vector_dim
        self._pooler = ExternalPooler(
            self.manifest,
            None if dim is None else fake_projector(dim, self.manifest.hidden_size),
        )
        self.max_tokens: int = settings.max_model_tokens or self.manifest.max_text_tokens
        self._limits = ImageLimits(
            max_bytes=settings.max_image_bytes,
            max_decoded_pixels=settings.max_decoded_pixels,
            max_aspect_ratio=self.manifest.image.max_aspect_ratio,
        )
        self._closed = False

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        """Embed `prompts`; see `Engine.embed`."""
        await self.check_health()
        self._pooler.check(want)
        return [self._outcome(prompt, want) for prompt in prompts]

    async def check_health(self) -> None:
        """Return unless closed; see `Engine.check_health`."""
        if self._closed:
            raise EngineStoppedError("The engine is closed. Load the checkpoint again.")

    async def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True

    def _outcome(self, prompt: Prompt, want: Want) -> Outcome:
        try:
            token_ids = self._expand(prompt)
            if len(token_ids) > self.max_tokens:
                raise InputError(
                    f"The input has {len(token_ids)} tokens; this engine was loaded for at most {self.max_tokens}."
                )
        except InputError as error:
            return error
        return self._pool(prompt, token_ids, want)

    def _pool(self, prompt: Prompt, token_ids: Sequence[int], want: Want) -> Pooled:
        embeddings = fake_token_embeddings(token_ids, self.manifest.hidden_size)
        return self._pooler.pool(prompt, token_ids, embeddings, want)

    def _expand(self, prompt: Prompt) -> list[int]:
        match prompt:
            case TextPrompt():
                return list(prompt.token_ids)
            case ImagePrompt():
                image = decode_image(prompt.source, self._limits)
                num_image_tokens = count_image_tokens(
                    image.width, image.height, prompt.max_pixels, self.manifest.image
                )
                return prompt.expanded(self.manifest.special_token_ids.image_pad, num_image_tokens)
            case _:
                assert_never(prompt)
