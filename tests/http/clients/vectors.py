"""What clients got, beside what the Python API gives; equal means equal in every bit."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Vector = np.ndarray[Any, np.dtype[np.float32]]


def floats(values: Sequence[float]) -> Vector:
    return np.asarray(values, dtype=np.float32)


def from_base64(text: str) -> Vector:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)


def assert_same(got: Sequence[Any], expected: Sequence[Any]) -> None:
    assert len(got) == len(expected) > 0
    for one, other in zip(got, expected, strict=True):
        assert floats(one).shape == other.shape
        assert floats(one).tobytes() == floats(other).tobytes()


def base64_of(image: Path) -> str:
    return base64.b64encode(image.read_bytes()).decode("ascii")


def data_uri(image: Path) -> str:
    return f"data:image/png;base64,{base64_of(image)}"
