"""Vectors of length one.

The one place that divides by a norm, so that every vector here follows one convention. It does not
know where the vectors came from.
"""

from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional

NORM_FLOOR = 1e-12
"""A norm below this counts as this, as in `torch.nn.functional.normalize`: zero stays zero."""


def unit(vectors: Float[Tensor, "*batch hidden"]) -> Float32[Tensor, "*batch hidden"]:
    """L2 over the last axis in float32: `v / max(|v|, 1e-12)`.

    NaN and infinity come out as NaN. A norm that overflows float32 (|v| beyond 1.8e19) divides to
    zero, as in `torch.nn.functional.normalize`; hidden states stay below that by ten orders of
    magnitude.
    """
    return functional.normalize(vectors.float(), dim=-1, eps=NORM_FLOOR)
