"""The merge itself: W' = round(W + scale * (B @ A)), in float32, rounded once.

The order of operations is PEFT's default merge (peft/tuners/lora/layer.py: Linear.merge and
get_delta_weight, adapters held in float32), so results are equal bit for bit, in float32 output
too: the product is rounded, then the scaled product, then the sum. A fused multiply-add would be
more exact and different. Pure functions over tensors: no file, no name, no thread.
"""

import torch
from jaxtyping import Float, Float32
from torch import Tensor

__all__ = ["merge_rows", "merged"]


def merged(
    base: Float[Tensor, "out in"],
    a: Float[Tensor, "rank in"],
    b: Float[Tensor, "out rank"],
    scale: float,
    dtype: torch.dtype,
) -> Float[Tensor, "out in"]:
    """The whole of one weight, in fresh memory; `merge_rows` is this in reused memory."""
    delta = torch.empty(base.shape, dtype=torch.float32)
    merge_rows(base.float(), a.float(), b.float(), scale, delta)
    return delta.to(dtype)


def merge_rows(
    base: Float32[Tensor, "row in"],
    a: Float32[Tensor, "rank in"],
    b: Float32[Tensor, "row rank"],
    scale: float,
    out: Float32[Tensor, "row in"],
) -> None:
    """Writes base + scale * (b @ a) to `out`, unrounded beyond float32."""
    torch.mm(b, a, out=out)
    if scale != 1.0:
        out.mul_(scale)
    out.add_(base)
