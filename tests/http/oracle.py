"""The fake engine's vectors from its formula: tokenizers and numpy, none of the code under test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

Rows = np.ndarray[Any, np.dtype[np.float64]]

HIDDEN_SIZE = 64
MULTI_DIM = 32
QUERY, PASSAGE = "Query: ", "Passage: "


class Oracle:
    """Tokens and vectors of one merged golden checkpoint."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))

    def ids(self, text: str) -> list[int]:
        """Token ids of `text` as it is, without a prefix."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def spelled(self, ids: Sequence[int]) -> list[str]:
        """Each token by itself, as text."""
        return [self._tokenizer.decode([one], skip_special_tokens=False) for one in ids]


def rows(ids: Sequence[int]) -> Rows:
    """`x[p, j] = sin((id[p] + 1) * (j + 1))`."""
    return np.sin(np.outer(np.asarray(ids, dtype=np.float64) + 1, np.arange(1, HIDDEN_SIZE + 1)))


def unit(vectors: Rows) -> Rows:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def mean(ids: Sequence[int]) -> Rows:
    """The single vector before it is scaled."""
    return np.asarray(rows(ids).mean(axis=0))


def single(ids: Sequence[int], dim: int = HIDDEN_SIZE) -> Rows:
    return unit(mean(ids)[:dim])


def multi(ids: Sequence[int]) -> Rows:
    return unit(rows(ids)[:, :MULTI_DIM])


def maxsim(query: Sequence[int], document: Sequence[int]) -> float:
    return float((multi(query) @ multi(document).T).max(axis=1).sum())


def close(got: Any, expected: Rows) -> bool:
    """Equal but for float32's rounding."""
    return np.shape(got) == expected.shape and np.allclose(got, expected, rtol=0, atol=2e-6)
