"""Pooled outcomes in the containers that callers of the Python API expect.

Tensors and arrays only; it does not know where the vectors came from.
"""

from collections.abc import Sequence
from typing import Literal, assert_never, get_args

import numpy as np
import torch
from torch import Tensor

from pooling import binary, ubinary
from serving.engine.protocol import Pooled
from serving.errors import TaskError

Precision = Literal["float32", "binary", "ubinary"]
Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]


def vectors_of(pooled: Sequence[Pooled], *, multi: bool) -> list[Tensor]:
    """The single vectors, float32 [hidden], or the multi-vectors, float32 [token, dim]."""
    vectors = [item.multi if multi else item.single for item in pooled]
    found = [vector for vector in vectors if vector is not None]
    assert len(found) == len(vectors)  # the request asked for exactly these
    return found


def stacked(vectors: Sequence[Tensor], dim: int) -> Tensor:
    """[len(vectors), ...] of vectors of one shape; [0, dim] of none."""
    return torch.stack(list(vectors)) if vectors else torch.empty((0, dim))


def check_precision(precision: str, *, multi: bool) -> None:
    """Refuse a precision before anything is computed.

    Raises:
        TaskError: it is not offered; says what to use instead.
    """
    if precision not in get_args(Precision):
        raise TaskError(
            f"precision must be one of {list(get_args(Precision))}, not {precision!r}. "
            "For int8 use pooling.int8(vectors), which returns the scales that undo it."
        )
    if multi and precision != "float32":
        raise TaskError(
            f"precision={precision!r} is for single vectors. "
            "For multi-vectors call pooling.binary or pooling.ubinary on each."
        )


def with_precision(vectors: Tensor, precision: Precision) -> Tensor:
    """Single vectors [input, dim] as they are, or one bit per dimension packed into bytes."""
    match precision:
        case "float32":
            return vectors
        case "binary":
            return binary(vectors)
        case "ubinary":
            return ubinary(vectors)
        case _:
            assert_never(precision)
