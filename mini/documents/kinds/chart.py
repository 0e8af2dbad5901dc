"""A chart: bars, a line or a pie in one colour, of a topic, by city."""

import random

from mini.documents import vocabulary
from mini.documents.canvas import Canvas, Colour
from mini.documents.kinds.paper import blank, finished, title_size, titled
from mini.documents.page import Page

_FORMS = ("bar", "line", "pie")


def chart(rng: random.Random) -> Page:
    """A chart with three labelled values."""
    canvas, ink = blank(rng)
    topic, form = rng.choice(vocabulary.TOPICS), rng.choice(_FORMS)
    colour = rng.choice(sorted(vocabulary.COLOURS))
    cities = rng.sample(vocabulary.CITIES, 3)
    canvas.text(1, 0, titled(rng, topic), size=title_size(rng), fill=ink, title=True)
    heights = [rng.uniform(0.2, 1.0) for _ in cities]
    fill = vocabulary.COLOURS[colour]
    match form:
        case "bar":
            _bars(canvas, heights, fill, ink)
        case "line":
            _line(canvas, heights, fill, ink)
        case _:
            _pie(canvas, heights, fill, ink)
    for at, city in enumerate(cities):
        canvas.text(1, 9 + 2 * at, f"{at + 1} {city}", size=rng.randint(26, 30), fill=ink)
    one, two = rng.sample(cities, 2)
    return finished(
        "chart",
        f"{colour} {form}",
        canvas,
        [f"topic:{topic}", f"form:{form}", f"colour:{colour}"]
        + [f"city:{city}" for city in cities],
        f"A {colour} {form} chart of {topic} in {', '.join(cities)}.",
        [
            (
                f"{colour} {form} chart of {topic}",
                [f"colour:{colour}", f"form:{form}", f"topic:{topic}"],
            ),
            (
                f"{form} chart of {topic} in {one}",
                [f"form:{form}", f"topic:{topic}", f"city:{one}"],
            ),
            (
                f"chart of {topic} for {one} and {two}",
                [f"topic:{topic}", f"city:{one}", f"city:{two}"],
            ),
            (
                f"{colour} chart with {one} and {two}",
                [f"colour:{colour}", f"city:{one}", f"city:{two}"],
            ),
        ],
    )


def _bars(canvas: Canvas, heights: list[float], fill: Colour, ink: Colour) -> None:
    for at, height in enumerate(heights):
        left = 70 + 110 * at
        canvas.draw.rectangle((left, 238 - 160 * height, left + 70, 238), fill=fill)
    canvas.draw.line((50, 70, 50, 240, 400, 240), fill=ink, width=3)


def _line(canvas: Canvas, heights: list[float], fill: Colour, ink: Colour) -> None:
    canvas.draw.line((50, 70, 50, 240, 400, 240), fill=ink, width=3)
    points = [(90 + 130 * at, 230 - 150 * height) for at, height in enumerate(heights)]
    canvas.draw.line(points, fill=fill, width=10, joint="curve")
    for x, y in points:
        canvas.draw.ellipse((x - 11, y - 11, x + 11, y + 11), fill=fill)


def _pie(canvas: Canvas, heights: list[float], fill: Colour, ink: Colour) -> None:
    start, whole = -90.0, sum(heights)
    for at, height in enumerate(heights):
        end = start + 360 * height / whole
        shade = tuple(min(255, round(part + (255 - part) * 0.3 * at)) for part in fill)
        canvas.draw.pieslice((140, 70, 310, 240), start, end, fill=shade, outline=ink, width=2)
        start = end
