"""A canvas that remembers where each word stands.

It knows fonts, colours and boxes, not what a document means. Fonts are those that matplotlib brings,
so that a page looks the same wherever it is drawn.
"""

import random
from dataclasses import dataclass
from functools import cache
from math import cos, pi, sin
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from mini.documents.vocabulary import COLOURS

GRID = 28
"""Pixels: one patch of the model on a page that is drawn twice as large as the model sees it."""

FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono")

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Word:
    """A word on a page, and the box it fills in pixels of the page: left, top, right, bottom."""

    text: str
    box: tuple[float, float, float, float]


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of matplotlib's, of `size` pixels."""
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), size)


class Canvas:
    """An image in the making: places are given in patches, and each text lands near them."""

    def __init__(self, rng: random.Random, width: int, height: int, background: Colour) -> None:
        self.rng = rng
        self.image = Image.new("RGB", (width, height), background)
        self.draw = ImageDraw.Draw(self.image)
        self.words: list[Word] = []
        self.shapes: list[Word] = []
        self.body_font = rng.choice(FONTS)
        self.title_font = rng.choice(FONTS)

    def text(
        self,
        column: float,
        row: float,
        text: str,
        *,
        size: int,
        fill: Colour,
        title: bool = False,
    ) -> None:
        """Write `text` with its left edge at `column` and its middle in `row`, in patches.

        A jitter of up to four pixels keeps the model from learning places by heart.
        """
        chosen = font(self.title_font if title else self.body_font, size)
        left = column * GRID + self.rng.randint(-4, 4)
        middle = (row + 1) * GRID + self.rng.randint(-4, 4)
        for part in text.split(" "):
            box = self.draw.textbbox((left, middle), part, font=chosen, anchor="lm")
            self.draw.text((left, middle), part, font=chosen, fill=fill, anchor="lm")
            self.words.append(Word(part.lower(), box))
            left = left + chosen.getlength(part + " ")

    def width_of(self, text: str, *, size: int, title: bool = False) -> float:
        """How many patches `text` is wide."""
        return font(self.title_font if title else self.body_font, size).getlength(text) / GRID

    def shape(
        self, name: str, colour: str, column: float, row: float, radius: float, outline: Colour
    ) -> None:
        """Draw a shape around a point, places in patches; it is remembered as "red circle"."""
        x, y, r = column * GRID, row * GRID, radius * GRID
        fill = COLOURS[colour]
        self.shapes.append(Word(f"{colour} {name}", (x - r, y - r, x + r, y + r)))
        match name:
            case "circle":
                self.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=outline, width=4)
            case "square":
                self.draw.rectangle(
                    (x - r, y - r, x + r, y + r), fill=fill, outline=outline, width=4
                )
            case _:
                self.draw.polygon(_corners(name, x, y, r), fill=fill, outline=outline, width=4)


def _corners(name: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    corners = {"triangle": 3, "diamond": 4, "hexagon": 6, "star": 10}[name]
    points = []
    for at in range(corners):
        reach = radius * (0.45 if name == "star" and at % 2 else 1.0)
        angle = 2 * pi * at / corners - pi / 2
        points.append((x + reach * cos(angle), y + reach * sin(angle)))
    return points
