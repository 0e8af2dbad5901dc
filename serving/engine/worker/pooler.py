"""The pooler that vLLM calls after each step: recipes followed where the hidden states are.

A prompt may be computed in several steps; what came before is kept until its last, as vLLM's own ALL
pooling does. Nothing here waits for the device, and nothing raises for one prompt's sake: that would
end the engine for all. A prompt that cannot be pooled gets NaN or nothing, which is refused outside.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor
from vllm.model_executor.layers.pooler import PoolingParamsUpdate
from vllm.model_executor.layers.pooler.abstract import Pooler
from vllm.model_executor.layers.pooler.tokwise.methods import AllPool
from vllm.pooling_params import PoolingParams
from vllm.tasks import PoolingTask
from vllm.v1.pool.metadata import PoolingMetadata

from pooling import PoolingError, Projector, vision_span, whole
from serving.engine.recipe import Recipe
from serving.engine.worker import EXTRA
from serving.manifest import Manifest


@dataclass(frozen=True)
class _TokenIdsWithoutRecipe(PoolingParamsUpdate):  # type: ignore[misc]
    """Token ids are gathered only for requests that do not say themselves what to pool."""

    def apply(self, params: PoolingParams) -> None:
        params.requires_token_ids = EXTRA not in (params.extra_kwargs or {})


@dataclass(frozen=True, slots=True)
class _Means:
    """A prompt of which single vectors alone are wanted.

    Attributes:
        index: its place in the step.
        values: its spans' means, float32 [span, hidden].
        finish: what is left to do with them; the same for many prompts.
        is_plain: its client takes one vector and not a list.
    """

    index: int
    values: Tensor
    finish: Recipe
    is_plain: bool


class RecipePooler(Pooler):  # type: ignore[misc]
    """Single vectors for task `embed`, multi-vectors or both for `token_embed`.

    A request carries its `Recipe`. One without, from a client that knows vLLM alone, gets what its task
    and parameters say: the image's span where there is one, the whole text otherwise.
    """

    def __init__(self, manifest: Manifest, projector: Projector | None) -> None:
        super().__init__()
        self._manifest = manifest
        self._projector = projector
        self._all = AllPool()

    def get_supported_tasks(self) -> Set[PoolingTask]:
        """`embed`, and `token_embed` where the checkpoint has a projector."""
        return {"embed"} if self._projector is None else {"embed", "token_embed"}

    def get_pooling_updates(self, task: PoolingTask) -> PoolingParamsUpdate:
        """Ask for token ids where they are needed."""
        return _TokenIdsWithoutRecipe()

    def forward(
        self, hidden_states: Tensor, pooling_metadata: PoolingMetadata
    ) -> list[Tensor | None]:
        """One tensor for each prompt that ends with this step, None for the others."""
        _forget_what_is_computed_anew(pooling_metadata)
        prompt_lens = pooling_metadata.prompt_lens.tolist()
        outputs: list[Tensor | None] = []
        means: dict[Recipe, list[_Means]] = {}
        for index, rows in enumerate(self._all(hidden_states, pooling_metadata)):
            outputs.append(None)
            if rows is None:
                continue
            if len(rows) != prompt_lens[index]:
                # Cached tokens have no hidden states: a mean of the others would look right.
                rows = torch.full_like(rows[:1], torch.nan).expand(prompt_lens[index], -1)
            made = self._pooled(rows, pooling_metadata, index)
            if isinstance(made, _Means):
                means.setdefault(made.finish, []).append(made)
            else:
                outputs[index] = made
        for finish, group in means.items():
            _finish(finish, group, outputs)
        return outputs

    def _pooled(
        self, token_embeddings: Tensor, metadata: PoolingMetadata, index: int
    ) -> "_Means | Tensor":
        params = metadata.pooling_params[index]
        numbers = (params.extra_kwargs or {}).get(EXTRA)
        normalized, dim = params.use_activation is not False, params.dimensions
        try:
            recipe = (
                self._default(params, metadata, index, len(token_embeddings))
                if numbers is None
                else Recipe.from_numbers(numbers, normalized=normalized, dim=dim)
            )
            if recipe.multi is None:
                return _Means(
                    index=index,
                    values=recipe.means(token_embeddings),
                    finish=Recipe(normalized=normalized, dim=dim),
                    is_plain=numbers is None,
                )
            return recipe.pack(recipe.reduce(token_embeddings, self._projector))
        except PoolingError:
            if numbers is not None:
                return token_embeddings.new_empty(0)
            nothing = torch.full_like(token_embeddings, torch.nan)
            return nothing[0] if params.task == "embed" else nothing

    def _default(
        self, params: PoolingParams, metadata: PoolingMetadata, index: int, num_tokens: int
    ) -> Recipe:
        normalized, dim = params.use_activation is not False, params.dimensions
        if params.task == "token_embed":
            return Recipe(multi="float32", normalized=normalized)
        assert metadata.prompt_token_ids_cpu is not None
        ids = self._manifest.special_token_ids
        span = vision_span(
            metadata.prompt_token_ids_cpu[index, :num_tokens].tolist(),
            vision_start_id=ids.vision_start,
            vision_end_id=ids.vision_end,
        )
        return Recipe((span or whole(num_tokens),), normalized=normalized, dim=dim)


def _forget_what_is_computed_anew(metadata: PoolingMetadata) -> None:
    """A prompt that vLLM took out to make room starts again at its first token, with its rows still kept."""
    cursor = metadata.get_pooling_cursor()
    for index, state in enumerate(metadata.pooling_states):
        # Few keep any, and looking into a tensor takes longer than asking.
        if state.hidden_states_cache and bool(
            cursor.seq_lens_cpu[index] == cursor.num_scheduled_tokens_cpu[index]
        ):
            state.clean()


def _finish(finish: Recipe, group: Sequence[_Means], outputs: list[Tensor | None]) -> None:
    """What is left of single vectors is cheap, its calls are not: once for all prompts of a step."""
    means = torch.cat([one.values for one in group])
    try:
        vectors = finish.singles(means)
    except PoolingError:
        for one in group:
            outputs[one.index] = torch.full_like(one.values, torch.nan)
        return
    start = 0
    for one in group:
        of_prompt = vectors[start : start + len(one.values)]
        outputs[one.index] = of_prompt[0] if one.is_plain else of_prompt
        start += len(of_prompt)
