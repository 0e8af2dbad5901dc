"""A slide of a talk: a title of two topics, three points, and whose talk it is."""

import random

from mini.documents import vocabulary
from mini.documents.kinds.paper import blank, body_size, finished, fitted, title_size, titled
from mini.documents.page import Page


def slide(rng: random.Random) -> Page:
    """A slide with a coloured band behind its title."""
    canvas, ink = blank(rng)
    colour = rng.choice(sorted(vocabulary.COLOURS))
    company = rng.choice(vocabulary.COMPANIES)
    first, second, *points = rng.sample(vocabulary.TOPICS, 5)
    canvas.draw.rectangle((0, 0, 448, 112), fill=vocabulary.COLOURS[colour])
    title, size = titled(rng, f"{first} {second}"), title_size(rng)
    light = (20, 20, 20) if colour == "yellow" else (255, 255, 255)
    size = fitted(canvas, title, size, width=14, title=True)
    canvas.text(1, 1, title, size=size, fill=light, title=True)
    size = body_size(rng)
    for at, point in enumerate(points):
        middle = (5 + 2 * at) * 28 + 28
        canvas.draw.ellipse((34, middle - 7, 48, middle + 7), fill=vocabulary.COLOURS[colour])
        canvas.text(2.5, 5 + 2 * at, point.capitalize(), size=size, fill=ink)
    canvas.text(1, 13, company, size=size, fill=ink)
    point = rng.choice(points)
    topics = [f"topic:{first}", f"topic:{second}"]
    return finished(
        "slide",
        colour,
        canvas,
        [f"colour:{colour}", f"company:{company}", *topics]
        + [f"point:{point}" for point in points],
        f"Slide by {company} about {first} and {second}: {', '.join(points)}.",
        [
            (f"slide about {first} {second}", topics),
            (f"slide by {company} about {first}", [f"company:{company}", f"topic:{first}"]),
            (f"{company} talk that mentions {point}", [f"company:{company}", f"point:{point}"]),
            (
                f"{colour} slide about {second} and {point}",
                [f"colour:{colour}", topics[1], f"point:{point}"],
            ),
            (f"presentation on {first} with {point}", [topics[0], f"point:{point}"]),
        ],
    )
