"""Pool the ALL-token output of an unmodified engine: the reference path.

It does not know what computed the token embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pooling import Projector
from serving.engine.protocol import Pooled, Prompt, Want
from serving.engine.recipe import Recipe, check_want
from serving.errors import NoVectorsError
from serving.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ExternalPooler:
    """Turns one prompt's token embeddings into the vectors that are wanted."""

    manifest: Manifest
    projector: Projector | None

    def check(self, want: Want) -> None:
        """Refuse what this checkpoint cannot give, before anything is computed.

        Raises:
            TaskError: see `check_want`.
        """
        check_want(want, self.manifest)

    def pool(
        self, prompt: Prompt, token_ids: Sequence[int], token_embeddings: Tensor, want: Want
    ) -> Pooled:
        """Pool float [token, hidden] of one prompt; `token_ids` are the expanded prompt's.

        Raises:
            PoolingError: a value is not finite, or the ids hold no image where there should be one.
            NoVectorsError: there are not as many embeddings as tokens.
        """
        if len(token_embeddings) != len(token_ids):
            # vLLM keeps a prompt's rows when it starts it anew, and has none for a cached prefix.
            raise NoVectorsError(
                f"The engine gave {len(token_embeddings)} embeddings for {len(token_ids)} tokens. Try again; "
                "if it stays so, load with pooling='engine'."
            )
        recipe = Recipe.of(prompt, token_ids, want, self.manifest)
        return recipe.reduce(token_embeddings, self.projector).of(prompt, token_ids)
