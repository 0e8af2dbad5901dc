"""Vectors as bytes and back: raw little-endian floats, and base64 of little-endian float32.

It does not know shapes beyond counting (the bytes hold values only, the caller carries the shape),
nor JSON, HTTP headers or content types.
"""

import binascii
import math
from enum import Enum
from typing import assert_never

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from pooling.errors import DecodeError, NonFiniteError
from pooling.finite import require_finite


class VectorFormat(Enum):
    """How one value is laid out; all are little-endian."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def value_bytes(self) -> int:
        """Bytes of one value."""
        match self:
            case VectorFormat.FP32:
                return 4
            case VectorFormat.FP16 | VectorFormat.BF16:
                return 2
            case _:
                assert_never(self)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype a value is rounded to."""
        match self:
            case VectorFormat.FP32:
                return torch.float32
            case VectorFormat.FP16:
                return torch.float16
            case VectorFormat.BF16:
                return torch.bfloat16
            case _:
                assert_never(self)


def encode_raw(embeddings: Float[Tensor, "..."], vector_format: VectorFormat) -> bytes:
    """The values in row-major order, each rounded once to `vector_format`, nearest even.

    Raises:
        NonFiniteError: a value is NaN or infinite, or becomes infinite in the narrower format.
    """
    require_finite(embeddings)
    rounded = embeddings.detach().cpu().to(vector_format.torch_dtype)
    if rounded.dtype != embeddings.dtype and not bool(torch.isfinite(rounded).all()):
        raise NonFiniteError(
            f"A value outgrows {vector_format.value}: the largest magnitude is "
            f"{float(embeddings.abs().max()):g}. Encode unit vectors, or choose fp32."
        )
    # numpy has no bfloat16, so the bits travel as integers.
    if vector_format.value_bytes == 2:
        return rounded.view(torch.int16).numpy().astype("<i2", copy=False).tobytes()
    return rounded.view(torch.int32).numpy().astype("<i4", copy=False).tobytes()


def decode_raw(
    data: bytes, shape: tuple[int, ...], vector_format: VectorFormat
) -> Float32[Tensor, "..."]:
    """The vectors behind `encode_raw`, widened to float32, which loses nothing.

    Raises:
        DecodeError: the shape has a dimension below 1, or does not account for every byte.
    """
    if any(size < 1 for size in shape):
        raise DecodeError(f"A shape counts from 1, got {shape}. Pass the shape that was encoded.")
    expected_bytes = math.prod(shape) * vector_format.value_bytes
    if len(data) != expected_bytes:
        raise DecodeError(
            f"Shape {shape} in {vector_format.value} takes {expected_bytes} bytes, got "
            f"{len(data)}. Check the shape, the format, and that the bytes arrived whole."
        )
    if vector_format.value_bytes == 2:
        bits = torch.from_numpy(np.frombuffer(data, dtype="<i2").astype(np.int16))
    else:
        bits = torch.from_numpy(np.frombuffer(data, dtype="<i4").astype(np.int32))
    return bits.view(vector_format.torch_dtype).float().reshape(shape)


def encode_base64(embeddings: Float[Tensor, "..."]) -> str:
    """Standard base64 with padding of the values as little-endian float32, row-major.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    return binascii.b2a_base64(encode_raw(embeddings, VectorFormat.FP32), newline=False).decode(
        "ascii"
    )


def decode_base64(text: str, shape: tuple[int, ...]) -> Float32[Tensor, "..."]:
    """The vectors behind `encode_base64`.

    Raises:
        DecodeError: the text is not base64, or the shape does not account for every byte.
    """
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError(
            f"Vectors are standard base64 with padding, got {len(text)} characters that are not: "
            f"{error}. Check that the text arrived whole and is not URL-safe base64."
        ) from error
    return decode_raw(data, shape, VectorFormat.FP32)
