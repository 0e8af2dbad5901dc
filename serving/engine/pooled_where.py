"""Where an engine's token embeddings become vectors: inside vLLM's worker, or here.

Both ask vLLM for a prompt's output, and make `Pooled` of it. Knows vLLM's parameters, not its engine.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from serving.engine.external import ExternalPooler
from serving.engine.pool_batches import PoolBatches
from serving.engine.projector import require_projector
from serving.engine.protocol import Pooled, Prompt, Want
from serving.engine.recipe import MultiDtype, Recipe
from serving.engine.worker import EXTRA
from serving.manifest import Manifest

if TYPE_CHECKING:
    from vllm import PoolingParams


class Pooling(Protocol):
    """One of the two ways."""

    @property
    def manifest(self) -> Manifest:
        """What the checkpoint says of itself."""
        ...

    def check(self, want: Want) -> None:
        """Refuse what this checkpoint cannot give, before anything is computed.

        Raises:
            TaskError: multi-vectors of a checkpoint without projector.
        """
        ...

    def params(self, prompt: Prompt, token_ids: Sequence[int], want: Want) -> "PoolingParams":
        """What to ask vLLM for; `token_ids` are the expanded prompt's."""
        ...

    async def pooled(
        self, prompt: Prompt, token_ids: Sequence[int], want: Want, output: Tensor
    ) -> Pooled:
        """What came, as vectors.

        Raises:
            PoolingError: a value is not finite.
        """
        ...


class PooledHere:
    """An unmodified vLLM sends every token's embedding, pooled in this process: the reference."""

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

    async def pooled(
        self, prompt: Prompt, token_ids: Sequence[int], want: Want, output: Tensor
    ) -> Pooled:
        """See `Pooling.pooled`."""
        # A projection over a page is milliseconds of arithmetic; the loop must not wait for it.
        return await self._batches.pool(prompt, token_ids, output, want)


class PooledInWorker:
    """The model of `serving.engine.worker` sends finished vectors."""

    def __init__(self, manifest: Manifest, multi: MultiDtype) -> None:
        from serving.engine.params import OwnedParams

        self.manifest = manifest
        self._multi = multi
        self._params = OwnedParams

    def check(self, want: Want) -> None:
        """See `Pooling.check`."""
        if want.multi:
            require_projector(self.manifest)

    def params(self, prompt: Prompt, token_ids: Sequence[int], want: Want) -> "PoolingParams":
        """The prompt's recipe."""
        recipe = self._recipe(prompt, token_ids, want)
        return self._params(
            task="embed" if recipe.multi is None else "token_embed",
            use_activation=recipe.normalized,
            dimensions=recipe.dim,
            # A cached prefix has no hidden states, so what it is part of cannot be pooled.
            skip_reading_prefix_cache=True,
            extra_kwargs={EXTRA: recipe.to_numbers()},
        )

    async def pooled(
        self, prompt: Prompt, token_ids: Sequence[int], want: Want, output: Tensor
    ) -> Pooled:
        """See `Pooling.pooled`."""
        recipe = self._recipe(prompt, token_ids, want)
        reduced = recipe.unpack(output, len(token_ids), self.manifest.multi_vector_dim)
        return reduced.of(prompt, token_ids)

    def _recipe(self, prompt: Prompt, token_ids: Sequence[int], want: Want) -> Recipe:
        return Recipe.of(prompt, token_ids, want, self.manifest, self._multi)
