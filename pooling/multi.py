"""One vector for each token: a linear projection, then L2.

It does not know which task's adapter is merged into the projector, nor how the vectors will be
compared (`pooling.maxsim`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional

from pooling.errors import EmptySpanError, ShapeError
from pooling.unit import unit

_BLOCK_TOKENS = 4096
"""Tokens projected at once: bounds the float32 copy of the input at 32 MiB for hidden 2048."""

_ALIGNMENT = 64
"""Bytes; where torch's own allocations start."""


@dataclass(frozen=True, slots=True)
class Projector:
    """A linear map from hidden states to token vectors, the merged `multi_vector_projector`.

    Store it in float32: other dtypes are widened on every call.

    Raises:
        ShapeError: the weight is not (dim, hidden), or the bias not (dim,).
    """

    weight: Float[Tensor, "dim hidden"]
    bias: Float[Tensor, " dim"] | None

    def __post_init__(self) -> None:
        if self.weight.ndim != 2:
            raise ShapeError(
                f"Projector weight has shape {tuple(self.weight.shape)}, expected (dim, hidden)."
            )
        if self.bias is not None and self.bias.shape != self.weight.shape[:1]:
            raise ShapeError(
                f"Projector bias has shape {tuple(self.bias.shape)}, expected "
                f"({self.weight.shape[0]},) to match the weight {tuple(self.weight.shape)}."
            )

    @property
    def dim(self) -> int:
        """Dimensions of one token's vector."""
        return self.weight.shape[0]

    @property
    def hidden(self) -> int:
        """Dimensions of one token's hidden state."""
        return self.weight.shape[1]


def multi_vector(
    token_embeddings: Float[Tensor, "token hidden"], projector: Projector
) -> Float32[Tensor, "token dim"]:
    """`unit(x @ W.T + b)` for every token, in float32; see `project` for the errors."""
    return unit(project(token_embeddings, projector))


def project(
    token_embeddings: Float[Tensor, "token hidden"], projector: Projector
) -> Float32[Tensor, "token dim"]:
    """`x @ W.T + b` for every token, in float32: a multi-vector before its tokens are normalised.

    On CUDA "float32" means what `torch.backends.cuda.matmul` says it means: with TF32 switched on
    the products are rounded to 10 bits of mantissa.

    Raises:
        EmptySpanError: no token.
        ShapeError: the hidden sizes differ.
    """
    if token_embeddings.ndim != 2 or token_embeddings.shape[1] != projector.hidden:
        raise ShapeError(
            f"token_embeddings has shape {tuple(token_embeddings.shape)}, expected "
            f"(token, {projector.hidden}) for this projector. "
            "Do the projector and the model come from the same checkpoint?"
        )
    if token_embeddings.shape[0] == 0:
        raise EmptySpanError("A multi-vector has at least one token, got none.")
    weight = _aligned(projector.weight.float())
    bias = None if projector.bias is None else projector.bias.float()
    return torch.cat(
        [
            functional.linear(_aligned(block.float()), weight, bias)
            for block in torch.split(token_embeddings, _BLOCK_TOKENS)
        ]
    )


def _aligned(values: Tensor) -> Tensor:
    """`values`, at an address where the CPU's matrix product takes one path.

    Tensors over received bytes or a mapped file start anywhere, and products of few rows then differ in
    the last bit from the same ones elsewhere.
    """
    if values.device.type == "cpu" and values.data_ptr() % _ALIGNMENT:
        return values.clone()
    return values
