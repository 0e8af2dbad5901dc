"""Vectors to what stands for them in JSON, many at once.

One tensor operation for a whole block instead of one for each vector. It does not know items or keys.
Floats are left to orjson, which writes the shortest text that reads back as the same float32.
"""

from typing import assert_never

import numpy as np
import orjson
import pybase64
from torch import Tensor

from pooling import binary, int8, require_finite, ubinary
from serving.http.wire.calls import Format

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]


def to_json(value: object) -> bytes:
    """JSON of plain values, arrays and numpy scalars."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def json_rows(vectors: Tensor, format_: Format) -> list[bytes]:
    """JSON of each row of `vectors`, float32 [vector, dim]: a list of numbers, or a string.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    if format_ is Format.BASE64:
        return _base64_rows(vectors)
    return [to_json(row) for row in _numbers(vectors, format_)]


def json_block(vectors: Tensor, format_: Format) -> bytes:
    """`json_rows`, with commas between them.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    if format_ is Format.BASE64:
        return b",".join(_base64_rows(vectors))
    return to_json(_numbers(vectors, format_))[1:-1]


def _base64_rows(vectors: Tensor) -> list[bytes]:
    require_finite(vectors)
    values = array_of(vectors.float()).astype("<f4", copy=False)
    # Nothing in base64 is escaped.
    return [b'"%b"' % pybase64.b64encode(row) for row in values]


def _numbers(vectors: Tensor, format_: Format) -> Array:
    match format_:
        case Format.FLOAT:
            require_finite(vectors)
            return array_of(vectors.float())
        case Format.BINARY:
            return array_of(binary(vectors))
        case Format.UBINARY:
            return array_of(ubinary(vectors))
        case Format.INT8:
            return array_of(int8(vectors).values)
        case Format.BASE64:
            raise AssertionError("base64 is text")
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
