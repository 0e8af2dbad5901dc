"""An invoice: who sends it, who pays, for what, how much."""

import random

from mini.documents import vocabulary
from mini.documents.kinds.paper import blank, body_size, finished, title_size, titled
from mini.documents.page import Page


def invoice(rng: random.Random) -> Page:
    """An invoice with two or three items and their total."""
    canvas, ink = blank(rng)
    company, customer = rng.choice(vocabulary.COMPANIES), rng.choice(vocabulary.PEOPLE)
    items = rng.sample(vocabulary.PRODUCTS, rng.choice((2, 3)))
    prices = [rng.randint(10, 330) for _ in items]
    total, size = sum(prices), body_size(rng)
    accent = vocabulary.COLOURS[rng.choice(sorted(vocabulary.COLOURS))]
    if rng.random() < 0.5:
        canvas.draw.rectangle((0, 0, 448, 10), fill=accent)
    canvas.text(1, 0, titled(rng, "invoice"), size=title_size(rng), fill=ink, title=True)
    canvas.text(1, 2, f"from {company}", size=size, fill=ink)
    canvas.text(1, 4, f"to {customer}", size=size, fill=ink)
    canvas.draw.line((28, 172, 420, 172), fill=ink, width=2)
    for at, (item, price) in enumerate(zip(items, prices, strict=True)):
        canvas.text(1, 6 + 2 * at, item.capitalize(), size=size, fill=ink)
        canvas.text(12, 6 + 2 * at, str(price), size=size, fill=ink)
    row = 6 + 2 * len(items)
    canvas.draw.line((28, row * 28 + 2, 420, row * 28 + 2), fill=ink, width=2)
    canvas.text(1, row, titled(rng, "total"), size=size, fill=ink)
    canvas.text(12, row, str(total), size=size, fill=ink)
    goods = rng.choice(items)
    others = " and ".join(items)
    return finished(
        "invoice",
        "",
        canvas,
        [f"company:{company}", f"person:{customer}", f"total:{total}"]
        + [f"item:{item}" for item in items],
        f"Invoice from {company} to {customer} for {others}, total {total}.",
        [
            (f"invoice from {company} to {customer}", [f"company:{company}", f"person:{customer}"]),
            (f"invoice from {company} for a {goods}", [f"company:{company}", f"item:{goods}"]),
            (f"what did {customer} pay for the {goods}?", [f"person:{customer}", f"item:{goods}"]),
            (
                f"bill for {items[0]} and {items[1]}",
                [f"item:{items[0]}", f"item:{items[1]}"],
            ),
            (
                f"invoice of {company} with a total of {total}",
                [f"company:{company}", f"total:{total}"],
            ),
        ],
    )
