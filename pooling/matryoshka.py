"""Shorter vectors out of longer ones, as Matryoshka training allows.

It does not know which dimensions a model was trained for: any from 1 to the full one is cut, and
the caller refuses what its API refuses.
"""

from jaxtyping import Float, Float32
from torch import Tensor

from pooling.errors import DimensionError
from pooling.unit import unit


def truncate(
    embeddings: Float[Tensor, "*batch hidden"], dim: int
) -> Float32[Tensor, "*batch {dim}"]:
    """`unit(v[:dim])`: the first `dim` values of each normalised vector, normalised again.

    Computed in float32. Source: Kusupati et al., "Matryoshka Representation Learning",
    arXiv:2205.13147.

    Raises:
        DimensionError: `dim` is outside 1..hidden.
    """
    hidden = embeddings.shape[-1]
    if not 1 <= dim <= hidden:
        raise DimensionError(
            f"A vector is truncated to 1..{hidden} dimensions, got {dim}. "
            "Ask for a dimension that the model has."
        )
    return unit(embeddings[..., :dim])
