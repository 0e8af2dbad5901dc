"""Vectors to what stands for them in JSON, many at once.

One tensor operation for a whole block instead of one for each vector. It does not know items, keys
or commas. Floats are left to orjson, which writes the shortest text that reads back as the same float32.
"""

from typing import assert_never

import numpy as np
import orjson
import pybase64
from torch import Tensor

from pooling import VectorFormat, binary, encode_raw, int8, require_finite, ubinary
from serving.http.wire.calls import Format

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
Rows = Array | list[str]
"""One element for each vector: a row of numbers, or a string."""

_FLOAT32_BYTES = 4


def to_json(value: object) -> bytes:
    """JSON of plain values, arrays and numpy scalars."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def rows_of(vectors: Tensor, format_: Format) -> Rows:
    """Each row of `vectors`, float32 [vector, dim], in `format_`.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    match format_:
        case Format.FLOAT:
            require_finite(vectors)
            return array_of(vectors.float())
        case Format.BASE64:
            return _base64_rows(vectors)
        case Format.BINARY:
            return array_of(binary(vectors))
        case Format.UBINARY:
            return array_of(ubinary(vectors))
        case Format.INT8:
            return array_of(int8(vectors).values)
        case _:
            assert_never(format_)


def scales_of(vectors: Tensor) -> Array:
    """The scale of each row in `Format.INT8`: `vector = integers * scale`.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    return array_of(int8(vectors).scales)


def array_of(tensor: Tensor) -> Array:
    """`tensor` as an array that orjson takes."""
    array: Array = tensor.detach().cpu().contiguous().numpy()
    return array


def _base64_rows(vectors: Tensor) -> list[str]:
    raw = memoryview(encode_raw(vectors, VectorFormat.FP32))
    row_bytes = vectors.shape[1] * _FLOAT32_BYTES
    return [
        pybase64.b64encode_as_string(raw[start : start + row_bytes])
        for start in range(0, len(raw), row_bytes)
    ]
