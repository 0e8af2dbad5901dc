"""Token embeddings -> vectors -> bytes.

    span -> single | multi -> matryoshka -> quantise -> encoding        maxsim

Pure functions over torch tensors on any device, in float32 whatever comes in, rounded once. No
I/O, no model, no server: `serving` mounts these functions outside the engine and inside it alike.
"""

from pooling.encoding import (
    VectorFormat,
    decode_base64,
    decode_raw,
    encode_base64,
    encode_raw,
)
from pooling.errors import (
    DecodeError,
    DimensionError,
    EmptySpanError,
    NonFiniteError,
    PoolingError,
    ShapeError,
    SpanError,
    SpanRangeError,
    VisionMarkerError,
)
from pooling.finite import require_finite
from pooling.matryoshka import truncate
from pooling.maxsim import maxsim, maxsim_scores
from pooling.multi import Projector, multi_vector, project
from pooling.quantise import Int8Vectors, binary, dequantise, int8, ubinary, unpack
from pooling.single import mean_vector, single_vector, single_vectors
from pooling.span import Span, vision_span, whole
from pooling.unit import unit

__all__ = [
    "DecodeError",
    "DimensionError",
    "EmptySpanError",
    "Int8Vectors",
    "NonFiniteError",
    "PoolingError",
    "Projector",
    "ShapeError",
    "Span",
    "SpanError",
    "SpanRangeError",
    "VectorFormat",
    "VisionMarkerError",
    "binary",
    "decode_base64",
    "decode_raw",
    "dequantise",
    "encode_base64",
    "encode_raw",
    "int8",
    "maxsim",
    "maxsim_scores",
    "mean_vector",
    "multi_vector",
    "project",
    "require_finite",
    "single_vector",
    "single_vectors",
    "truncate",
    "ubinary",
    "unit",
    "unpack",
    "vision_span",
    "whole",
]
