"""The same definitions as slow loops over Python floats (binary64), and inputs to compare on.

Written from the formulas, not from the code under test, and without torch.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

Row = list[float]

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

examples = settings(max_examples=40, deadline=None)
"""No deadline: the first call of an operator may load a library."""


def mean(rows: Sequence[Row], start: int, stop: int) -> Row:
    picked = [rows[token] for token in range(start, stop)]
    return [
        math.fsum(row[column] for row in picked) / len(picked) for column in range(len(rows[0]))
    ]


def unit(row: Row) -> Row:
    length = max(math.sqrt(math.fsum(value * value for value in row)), 1e-12)
    return [value / length for value in row]


def dot(left: Row, right: Row) -> float:
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


def linear(row: Row, weight: Sequence[Row], bias: Row) -> Row:
    return [dot(row, weight[out]) + bias[out] for out in range(len(weight))]


def maxsim(query: Sequence[Row], document: Sequence[Row]) -> float:
    total = 0.0
    for query_row in query:
        best = -math.inf
        for document_row in document:
            best = max(best, dot(query_row, document_row))
        total += best
    return total


def pack(row: Row) -> list[int]:
    packed = []
    for start in range(0, len(row), 8):
        octet = 0
        for offset, value in enumerate(row[start : start + 8]):
            if value > 0:
                octet += 2 ** (7 - offset)
        packed.append(octet)
    return packed


def rows(tensor: torch.Tensor) -> list[Row]:
    """What the tensor holds, exactly."""
    return [[float(value) for value in row] for row in tensor.detach().cpu().double().tolist()]


def normal(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return torch.from_numpy(values.astype(np.float32))


seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 24)
scales = st.sampled_from([1e-6, 1e-3, 1.0, 50.0, 4000.0])
"""The largest normal value drawn at 4000 still fits float16."""
