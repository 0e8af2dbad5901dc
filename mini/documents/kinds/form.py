"""A form that somebody filled in: name, city, date, and what it is about."""

import random

from mini.documents import vocabulary
from mini.documents.canvas import Canvas, Colour
from mini.documents.kinds.paper import blank, body_size, finished, fitted, title_size, titled
from mini.documents.page import Page


def form(rng: random.Random) -> Page:
    """A form with three fields in boxes and one ticked."""
    canvas, ink = blank(rng)
    purpose, person = rng.choice(vocabulary.FORMS), rng.choice(vocabulary.PEOPLE)
    city, product = rng.choice(vocabulary.CITIES), rng.choice(vocabulary.PRODUCTS)
    day, size = rng.randint(1, 31), body_size(rng)
    title = titled(rng, f"{purpose} form")
    fit = fitted(canvas, title, title_size(rng), width=14, title=True)
    canvas.text(1, 1, title, size=fit, fill=ink, title=True)
    fields = [("name", person), ("city", city), ("date", str(day)), ("", product)]
    rng.shuffle(fields)
    for at, (name, value) in enumerate(fields):
        row = 5 + 2 * at
        if name:
            canvas.draw.rectangle((150, row * 28 + 5, 424, row * 28 + 51), outline=ink, width=2)
            canvas.text(1, row, name, size=size - 2, fill=ink)
        else:
            _tick(canvas, row, ink)
        canvas.text(6, row, value, size=size, fill=ink)
    if rng.random() < 0.5:
        canvas.text(1, 13, "signed", size=size, fill=ink)
        canvas.draw.line((180, 410, 400, 410), fill=ink, width=2)
    asked = [f"purpose:{purpose}", f"person:{person}", f"city:{city}", f"item:{product}"]
    return finished(
        "form",
        "",
        canvas,
        [*asked, f"day:{day}"],
        f"{purpose.capitalize()} form of {person} from {city} for a {product}, day {day}.",
        [
            (f"{purpose} form of {person}", asked[:2]),
            (f"{purpose} form for a {product}", [asked[0], asked[3]]),
            (f"form of {person} from {city}", asked[1:3]),
            (f"{person} fills in a form about a {product}", [asked[1], asked[3]]),
        ],
    )


def _tick(canvas: Canvas, row: int, ink: Colour) -> None:
    left, top, side = 112, row * 28 + 15, 26
    canvas.draw.rectangle((left, top, left + side, top + side), outline=ink, width=2)
    canvas.draw.line((left, top, left + side, top + side), fill=ink, width=3)
    canvas.draw.line((left + side, top, left, top + side), fill=ink, width=3)
