"""A sign: one or two words under a coloured shape."""

import random

from mini.documents import vocabulary
from mini.documents.kinds.paper import blank, finished, fitted
from mini.documents.page import Page


def sign(rng: random.Random) -> Page:
    """A sign in capitals, with a shape above the words."""
    canvas, ink = blank(rng)
    colour, shape = rng.choice(sorted(vocabulary.COLOURS)), rng.choice(vocabulary.SHAPES)
    first, second = rng.sample(vocabulary.WARNINGS, 2)
    city = rng.choice(vocabulary.CITIES)
    canvas.draw.rectangle((8, 8, 440, 440), outline=ink, width=6)
    column, row = rng.uniform(5.5, 10.5), rng.uniform(4.2, 4.6)
    canvas.shape(shape, colour, column, row, rng.uniform(2.4, 3.2), ink)
    for at, word in enumerate((first.upper(), second.upper())):
        size = fitted(canvas, word, rng.randint(38, 46), width=13, title=True)
        canvas.text(1.5, 9 + 2 * at, word, size=size, fill=ink, title=True)
    canvas.text(1.5, 13, city, size=rng.randint(26, 32), fill=ink)
    words = [f"word:{first}", f"word:{second}"]
    return finished(
        "sign",
        f"{colour} {shape}",
        canvas,
        [f"colour:{colour}", f"shape:{shape}", f"city:{city}", *words],
        f"Sign in {city} with a {colour} {shape}: {first}, {second}.",
        [
            (f"sign that says {first} {second}", words),
            (f"{colour} {shape} sign: {first}", [f"colour:{colour}", f"shape:{shape}", words[0]]),
            (f"{second} sign in {city}", [words[1], f"city:{city}"]),
            (
                f"sign with a {shape} in {city}, {first}",
                [f"shape:{shape}", f"city:{city}", words[0]],
            ),
        ],
    )
