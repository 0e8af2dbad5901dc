"""What is kept of a vector, and how two of what is kept are scored.

Pure functions over float32 tensors. It does not know where vectors come from, nor what they stand for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor

from benchmarks.quality.errors import SpecError
from pooling import binary, dequantise, int8, maxsim_scores, truncate, unpack
from pooling.unit import unit

Vectors = Literal["single", "multi"]
Precision = Literal["float32", "int8", "binary"]

_BITS = {"float32": 32, "int8": 8, "binary": 1}
_SCALE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Representation:
    """Vectors as an index would hold them.

    Attributes:
        vectors: one for an input, or one for each of its tokens, scored by MaxSim.
        dimensions: kept of a single vector (Matryoshka); None keeps all.
        precision: of each value. int8 has a scale for each vector; binary keeps signs.

    Raises:
        SpecError: dimensions below 1, or any for multi-vectors, which have one dimension.
    """

    vectors: Vectors = "single"
    dimensions: int | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.dimensions is None:
            return
        if self.vectors == "multi":
            raise SpecError(
                f"Multi-vectors have one dimension; dimensions={self.dimensions} is for single vectors. "
                "Leave out one of them."
            )
        if self.dimensions < 1:
            raise SpecError(f"A vector keeps at least 1 dimension, not {self.dimensions}.")

    def cut(self, vector: Tensor) -> Tensor:
        """The first `dimensions` of a unit vector, at unit length again; others as they are."""
        if self.dimensions is None or self.dimensions == vector.shape[-1]:
            return vector
        return truncate(vector, self.dimensions)

    def quantised(self, vectors: Tensor) -> Tensor:
        """What the stored values stand for, in float32: an index of that precision scores with these.

        int8 is `pooling.int8`, undone; binary is the signs, divided by the root of the dimension, so that a
        product of two is their cosine: `1 - 2 * hamming / dim`.
        """
        match self.precision:
            case "float32":
                return vectors
            case "int8":
                return dequantise(int8(vectors))
            case "binary":
                dim = vectors.shape[-1]
                return unpack(binary(vectors), dim) / math.sqrt(dim)
            case _:
                assert_never(self.precision)

    def num_bytes(self, vector: Tensor) -> int:
        """Bytes that an index holds for what one input became, without its own overhead."""
        rows = 1 if vector.ndim == 1 else vector.shape[0]
        scales = rows * _SCALE_BYTES if self.precision == "int8" else 0
        return rows * ((vector.shape[-1] * _BITS[self.precision] + 7) // 8) + scales


def score_table(queries: Sequence[Tensor], documents: Sequence[Tensor]) -> Tensor:
    """Every query against every document, float32 [query, document].

    Cosine of single vectors [dim], MaxSim of multi-vectors [token, dim] (`pooling.maxsim`).
    """
    if not len(queries) or not len(documents):
        return torch.zeros(len(queries), len(documents))
    if queries[0].ndim == 1:
        return unit(torch.stack(list(queries))) @ unit(torch.stack(list(documents))).T
    return maxsim_scores(list(queries), list(documents))
