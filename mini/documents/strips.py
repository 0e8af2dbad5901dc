"""Strips: small crops crowded with words and shapes, on which the vision tower learns to read.

A page is mostly paper; a strip of the same letters has three times as many words for a patch.
"""

import random
from dataclasses import dataclass

from PIL import Image

from mini.documents import vocabulary
from mini.documents.canvas import Canvas, Colour, Word
from mini.documents.kinds.paper import INKS, PAPERS

SIDE = 224
"""Pixels of a strip as it is drawn: one window of the vision tower, at twice its size."""


@dataclass(frozen=True, slots=True)
class Strip:
    """A crop and what stands where in it; a coloured shape counts as a word, "red circle"."""

    image: Image.Image
    words: tuple[Word, ...]


def strip(rng: random.Random) -> Strip:
    """Three or four lines of random words, or two and a shape."""
    dark = rng.random() < 0.2
    ground = rng.choice(list(vocabulary.COLOURS.values())) if dark else rng.choice(PAPERS)
    light = (20, 20, 20) if ground == vocabulary.COLOURS["yellow"] else (255, 255, 255)
    ink = light if dark else rng.choice(INKS)
    canvas = Canvas(rng, SIDE, SIDE, ground)
    top = rng.choice((-1, 0))
    if not dark and rng.random() < 0.25:
        _shape(canvas, ink)
        top += 4
    while top < 8:
        _line(canvas, top, ink)
        top += 2
    return Strip(canvas.image, (*canvas.shapes, *canvas.words))


def _line(canvas: Canvas, row: int, ink: Colour) -> None:
    rng, column = canvas.rng, canvas.rng.uniform(-1.5, 2.5)
    size, title = rng.randint(26, 44), rng.random() < 0.5
    while column < 7:
        word = rng.choice(vocabulary.READABLE)
        if rng.random() < 0.12:
            word = str(rng.randint(1, 999))
        match rng.randrange(3):
            case 0:
                word = word.capitalize()
            case 1 if title:
                word = word.upper()
            case _:
                pass
        canvas.text(column, row, word, size=size, fill=ink, title=title)
        column += canvas.width_of(word + " ", size=size, title=title)


def _shape(canvas: Canvas, ink: Colour) -> None:
    rng = canvas.rng
    name, colour = rng.choice(vocabulary.SHAPES), rng.choice(sorted(vocabulary.COLOURS))
    column, row, radius = rng.uniform(1.5, 6.5), rng.uniform(1.6, 2.4), rng.uniform(1.8, 3.0)
    canvas.shape(name, colour, column, row, radius, ink)
