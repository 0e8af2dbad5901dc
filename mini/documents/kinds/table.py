"""A table: a topic, cities, and a number for each."""

import random

from mini.documents import vocabulary
from mini.documents.kinds.paper import blank, body_size, finished, title_size, titled
from mini.documents.page import Page


def table(rng: random.Random) -> Page:
    """A table of one topic with three or four cities."""
    canvas, ink = blank(rng)
    topic = rng.choice(vocabulary.TOPICS)
    cities = rng.sample(vocabulary.CITIES, rng.choice((3, 4)))
    values = [rng.randint(10, 999) for _ in cities]
    size, row_fill = body_size(rng), rng.choice(((225, 230, 240), (235, 230, 220)))
    canvas.text(1, 0, titled(rng, topic), size=title_size(rng), fill=ink, title=True)
    canvas.text(1, 3, "City", size=size, fill=ink, title=True)
    canvas.text(11, 3, "Table", size=size, fill=ink, title=True)
    canvas.draw.line((20, 142, 428, 142), fill=ink, width=3)
    for at, (city, value) in enumerate(zip(cities, values, strict=True)):
        top = (5 + 2 * at) * 28
        if at % 2 == 0:
            canvas.draw.rectangle((20, top + 4, 428, top + 54), fill=row_fill)
        canvas.text(1, 5 + 2 * at, city, size=size, fill=ink)
        canvas.text(11, 5 + 2 * at, str(value), size=size, fill=ink)
    at = rng.randrange(len(cities))
    one, two = rng.sample(cities, 2)
    return finished(
        "table",
        "",
        canvas,
        [f"topic:{topic}"]
        + [f"city:{city}" for city in cities]
        + [f"value:{city} {value}" for city, value in zip(cities, values, strict=True)],
        f"Table of {topic} by city: "
        + ", ".join(f"{city} {value}" for city, value in zip(cities, values, strict=True))
        + ".",
        [
            (
                f"table of {topic} in {one} and {two}",
                [f"topic:{topic}", f"city:{one}", f"city:{two}"],
            ),
            (f"{topic} of {one}, as a table", [f"topic:{topic}", f"city:{one}"]),
            (f"table that compares {one} with {two}", [f"city:{one}", f"city:{two}"]),
            (
                f"table of {topic} where {cities[at]} has {values[at]}",
                [f"topic:{topic}", f"value:{cities[at]} {values[at]}"],
            ),
        ],
    )
