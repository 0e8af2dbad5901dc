"""Where an engine's token embeddings become vectors: inside vLLM's worker, or here.

Both ask vLLM for a prompt's output, and make `Pooled` of it. Knows vLLM's parameters, not its engine.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from pooling import NonFiniteError, require_finite
from serving.engine.external import ExternalPooler
from serving.engine.pool_batches import PoolBatches
from serving.engine.protocol import Pooled, Prompt, Want
from serving.engine.recipe import MultiDtype, Recipe, check_want, multi_type
from serving.engine.worker import EXTRA
from serving.engine.worker.parcel import ParcelRecipe
from serving.manifest import Manifest

if TYPE_CHECKING:
    from vllm import PoolingParams


class Pooling(Protocol):
    """One of the two ways."""

    @property
    def manifest(self) -> Manifest:
        """What the checkpoint says of itself."""
        ...

    @property
    def takes_parcels(self) -> bool:
        """Whether many texts can be asked for in one message."""
        ...

    def check(self, want: Want) -> None:
        """Refuse what this checkpoint cannot give, before anything is computed.

        Raises:
            TaskError: multi-vectors of a checkpoint without projector, dimensions that it does not have, or
                no vectors at all.
        """
        ...

    def params(self, prompt: Prompt, token_ids: Sequence[int], want: Want) -> "PoolingParams":
        """What to ask vLLM for; `token_ids` are the expanded prompt's."""
        ...

    def parcel_params(self, lengths: Sequence[int], want: Want) -> "PoolingParams":
        """What to ask for whole texts of `lengths` tokens in one message."""
        ...

    async def pooled(
        self, prompt: Prompt, token_ids: Sequence[int], want: Want, output: Tensor
    ) -> Pooled:
        """What came, as vectors.

        Raises:
            PoolingError: a value is not finite.
        """
        ...

    def pooled_rows(
        self, texts: Sequence[Prompt], want: Want, outputs: Sequence[Tensor]
    ) -> list[Pooled] | None:
        """What came for a parcel, all at once; None where each output has to be looked at by itself."""
        ...


class PooledHere:
    """An unmodified vLLM sends every token's embedding, pooled in this process: the reference."""

    takes_parcels = False
    """It takes a message for each prompt."""

    def __init__(self, pooler: ExternalPooler) -> None:
        from serving.engine.params import OwnedParams

        self.manifest = pooler.manifest
        self._pooler = pooler
        self._batches = PoolBatches(pooler)
        # Without a task vLLM silently chooses one.
        self._params = OwnedParams(task="token_embed", use_activation=False)

    def check(self, want: Want) -> None:
        """See `Pooling.check`."""
        self._pooler.check(want)

    def params(self, prompt: Prompt, token_ids: Sequence[int], want: Want) -> "PoolingParams":
        """All tokens as they leave the final norm; vLLM would scale them to unit length."""
        return self._params

    def parcel_params(self, lengths: Sequence[int], want: Want) -> "PoolingParams":
        """See `Pooling.parcel_params`."""
        raise AssertionError("takes_parcels says no")

    def pooled_rows(
        self, texts: Sequence[Prompt], want: Want, outputs: Sequence[Tensor]
    ) -> list[Pooled] | None:
        """See `Pooling.pooled_rows`."""
        raise AssertionError("takes_parcels says no")

    async def pooled(
        self, prompt: Prompt, token_ids: Sequence[int], want: Want, output: Tensor
    ) -> Pooled:
        """See `Pooling.pooled`."""
        # A projection over a page is milliseconds of arithmetic; the loop must not wait for it.
        return await self._batches.pool(prompt, token_ids, output, want)


class PooledInWorker:
    """The model of `serving.engine.worker` sends finished vectors."""

    takes_parcels = True

    def __init__(self, manifest: Manifest, multi: MultiDtype) -> None:
        from serving.engine.params import OwnedParams

        self.manifest = manifest
        self._multi = multi
        self._params = OwnedParams

    def check(self, want: Want) -> None:
        """See `Pooling.check`."""
        check_want(want, self.manifest)

    def params(self, prompt: Prompt, token_ids: Sequence[int], want: Want) -> "PoolingParams":
        """The prompt's recipe."""
        return self._asking(want, self._recipe(prompt, token_ids, want).to_numbers())

    def parcel_params(self, lengths: Sequence[int], want: Want) -> "PoolingParams":
        """The recipe that the texts share; their spans follow from `lengths`."""
        recipe = ParcelRecipe(tuple(lengths), want.single, multi_type(want, self._multi))
        return self._asking(want, recipe.to_numbers())

    def _asking(self, want: Want, numbers: dict[str, Any]) -> "PoolingParams":
        return self._params(
            task="token_embed" if want.multi else "embed",
            use_activation=want.normalized,
            dimensions=want.dim,
            # A cached prefix has no hidden states, so what it is part of cannot be pooled.
            skip_reading_prefix_cache=True,
            extra_kwargs={EXTRA: numbers},
        )

    async def pooled(
        self, prompt: Prompt, token_ids: Sequence[int], want: Want, output: Tensor
    ) -> Pooled:
        """See `Pooling.pooled`."""
        recipe = self._recipe(prompt, token_ids, want)
        reduced = recipe.unpack(output, len(token_ids), self.manifest.multi_vector_dim)
        return reduced.of(prompt, token_ids)

    def pooled_rows(
        self, texts: Sequence[Prompt], want: Want, outputs: Sequence[Tensor]
    ) -> list[Pooled] | None:
        """See `Pooling.pooled_rows`."""
        if want.multi or any(output.numel() == 0 for output in outputs):
            return None
        rows = torch.cat(list(outputs))
        try:
            require_finite(rows)
        except NonFiniteError:
            return None
        return [
            Pooled(text.token_ids, single, None) for text, single in zip(texts, rows, strict=True)
        ]

    def _recipe(self, prompt: Prompt, token_ids: Sequence[int], want: Want) -> Recipe:
        return Recipe.of(prompt, token_ids, want, self.manifest, self._multi)
