"""What a model should see in each cell of a picture: the word that fills most of it.

A cell is one image token: 28 x 28 pixels as the model sees the picture, twice that as it is drawn.
"""

import numpy as np

from mini.documents import vocabulary
from mini.documents.canvas import GRID, Word

CELL = 2 * GRID
NOTHING = 0
NUMBER = 1

_CLASSES = {
    name: at
    for at, name in enumerate(
        [
            *vocabulary.READABLE,
            *(f"{colour} {shape}" for colour in vocabulary.COLOURS for shape in vocabulary.SHAPES),
        ],
        start=2,
    )
}
NUM_CLASSES = len(_CLASSES) + 2
"""Nothing, a number, every readable word, and every shape in every colour."""

_LEAST = 0.06
"""Part of a cell that a word must fill to be what is seen there."""


def cell_classes(words: tuple[Word, ...], width: int, height: int) -> np.ndarray:
    """The class of each cell of a picture of `width` x `height` drawn pixels, int64 [row column]."""
    rows, columns = height // CELL, width // CELL
    best = np.full((rows, columns), _LEAST * CELL * CELL)
    classes = np.full((rows, columns), NOTHING, dtype=np.int64)
    for word in words:
        left, top, right, bottom = word.box
        across = _overlaps(left, right, columns)
        down = _overlaps(top, bottom, rows)
        area = down[:, None] * across[None, :]
        kind = NUMBER if word.text.isdigit() else _CLASSES[word.text]
        classes[area > best] = kind
        best = np.maximum(best, area)
    return classes


def _overlaps(start: float, end: float, count: int) -> np.ndarray:
    edges = np.arange(count) * float(CELL)
    overlaps: np.ndarray = np.clip(
        np.minimum(end, edges + CELL) - np.maximum(start, edges), 0, None
    )
    return overlaps
