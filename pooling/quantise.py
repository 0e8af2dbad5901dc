"""Fewer bits per value: one bit, or one byte and a scale per vector.

It does not know how the numbers are spelled on a wire (`pooling.encoding` and the caller do).

The integers are exact functions of a vector alone. No calibration set is kept, unlike
`quantize_embeddings` of sentence-transformers, whose int8 ranges come from a corpus, per dimension:
its int8 values and these are not the same numbers and should not meet in one index. Its `binary`
and `ubinary` are the same bits.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int8, UInt8
from torch import Tensor
from torch.nn import functional

from pooling.errors import DimensionError
from pooling.finite import require_finite

INT8_MAX = 127
"""-128 is never used, so that negating a vector negates its integers."""


@dataclass(frozen=True, slots=True)
class Int8Vectors:
    """`v` is approximated by `values * scales`, one scale for each vector.

    The scale is positive, so the cosine of two rows of `values` is the cosine of the vectors they
    stand for and a store that ranks by cosine can drop the scales. A dot product needs them.
    """

    values: Int8[Tensor, "*batch dim"]
    scales: Float32[Tensor, "*batch"]


def int8(embeddings: Float[Tensor, "*batch dim"]) -> Int8Vectors:
    """`scale = max|v| / 127`, `values = round(v / scale)`, half to even, within -127..127.

    Symmetric and per vector (for a multi-vector: per token), in float32. The error of a value is
    at most half a scale and a float32 rounding. A zero vector has scale 0 and values 0.

    Raises:
        NonFiniteError: the input holds NaN or infinity. Waits for the device.
    """
    require_finite(embeddings)
    vectors = embeddings.float()
    scales = vectors.abs().amax(dim=-1) / INT8_MAX
    divisors = torch.where(scales > 0, scales, 1.0).unsqueeze(-1)
    # A subnormal scale is so coarse that a quotient may pass 127.
    values = (vectors / divisors).round().clamp(-INT8_MAX, INT8_MAX).to(torch.int8)
    return Int8Vectors(values, scales)


def dequantise(quantised: Int8Vectors) -> Float32[Tensor, "*batch dim"]:
    """`values * scales`, in float32.

    `int8` of the result gives the same integers again, unless the scale is subnormal.
    """
    return quantised.values.float() * quantised.scales.unsqueeze(-1)


def ubinary(embeddings: Float[Tensor, "*batch dim"]) -> UInt8[Tensor, "*batch packed"]:
    """`packbits(v > 0)`: one bit for each dimension, eight to a byte, the first one highest.

    Zero and negative values give 0. A dimension that is not a multiple of 8 fills the last byte
    with zeros from the right, as `numpy.packbits` does, and `unpack` must be told the dimension.

    Raises:
        NonFiniteError: the input holds NaN or infinity. Waits for the device.
    """
    require_finite(embeddings)
    bits = (embeddings > 0).to(torch.uint8)
    bits = functional.pad(bits, (0, -bits.shape[-1] % 8))
    packed: Tensor = bits[..., 0::8]
    for position in range(1, 8):
        packed = (packed << 1) | bits[..., position::8]
    return packed


def binary(embeddings: Float[Tensor, "*batch dim"]) -> Int8[Tensor, "*batch packed"]:
    """`ubinary` minus 128, as int8.

    Raises:
        NonFiniteError: the input holds NaN or infinity. Waits for the device.
    """
    # Taking 128 off a byte and reading it as signed is turning its highest bit over.
    return (ubinary(embeddings) ^ 0x80).view(torch.int8)


def unpack(
    packed: UInt8[Tensor, "*batch packed"] | Int8[Tensor, "*batch packed"], dim: int
) -> Float32[Tensor, "*batch {dim}"]:
    """The signs behind `ubinary` (uint8) or `binary` (int8): +1 where the bit is set, else -1.

    Raises:
        DimensionError: `dim` values do not pack into this many bytes.
    """
    num_bytes = packed.shape[-1]
    if dim < 1 or (dim + 7) // 8 != num_bytes:
        raise DimensionError(
            f"{dim} bits pack into {(dim + 7) // 8} bytes, got {num_bytes} bytes a vector, "
            f"expected a dimension of {8 * num_bytes - 7}..{8 * num_bytes}. "
            "Pass the dimension the vectors had before they were packed."
        )
    octets = packed if packed.dtype == torch.uint8 else packed.view(torch.uint8) ^ 0x80
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=octets.device)
    bits = (octets.unsqueeze(-1) >> shifts) & 1
    return bits.flatten(-2)[..., :dim].float() * 2 - 1
