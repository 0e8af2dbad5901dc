"""Vectors as Arrow columns: rounded once, packed where asked for. Knows no files."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pooling import binary, int8, ubinary
from serving.batch.schema import VectorFormat


def vector_columns(
    vectors: Sequence[Tensor], format_: VectorFormat
) -> tuple[pa.Array, pa.Array | None]:
    """The columns `embedding` and, for int8, `scale`.

    Args:
        vectors: for each row float32 [dim], or [token, dim] for multi-vectors.
        format_: how they are stored.

    Raises:
        NonFiniteError: a value is NaN or infinite, which int8 and bits cannot say.
    """
    width = format_.dim
    # One table of all vectors, whichever row they belong to.
    rows = [vector.reshape(-1, width) for vector in vectors]
    table = torch.cat(rows) if rows else torch.empty((0, width))
    values, scales = _stored(table, format_)
    flat = pa.array(values.reshape(-1), type=format_.value_type)
    column: pa.Array = pa.FixedSizeListArray.from_arrays(flat, format_.width)
    scale = None if scales is None else pa.array(scales, type=pa.float32())
    if format_.multi:
        ends = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int32)
        offsets = pa.array(ends, type=pa.int32())
        column = pa.ListArray.from_arrays(offsets, column)
        scale = None if scale is None else pa.ListArray.from_arrays(offsets, scale)
    return column, scale


def _stored(
    table: Tensor, format_: VectorFormat
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.generic]], np.ndarray | None]:
    match format_.dtype:
        case "float32":
            return table.float().numpy(), None
        case "float16":
            return table.half().numpy(), None
        case "int8":
            quantised = int8(table)
            return quantised.values.numpy(), quantised.scales.numpy()
        case "binary":
            return binary(table).numpy(), None
        case "ubinary":
            return ubinary(table).numpy(), None
