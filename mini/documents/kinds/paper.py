"""What the kinds of pages share: paper and ink, sizes of letters, and how a page is put together."""

import random

from mini.documents.canvas import Canvas, Colour
from mini.documents.page import HEIGHT, WIDTH, Page, Query

PAPERS: tuple[Colour, ...] = ((255, 255, 255), (250, 246, 236), (240, 244, 250), (244, 244, 244))
INKS: tuple[Colour, ...] = ((15, 15, 20), (40, 40, 60), (20, 40, 90), (70, 30, 30))


def blank(rng: random.Random) -> tuple[Canvas, Colour]:
    """A sheet of paper, and an ink for it."""
    return Canvas(rng, WIDTH, HEIGHT, rng.choice(PAPERS)), rng.choice(INKS)


def body_size(rng: random.Random) -> int:
    """Height of a line's letters in pixels."""
    return rng.randint(26, 32)


def title_size(rng: random.Random) -> int:
    """Height of a title's letters in pixels."""
    return rng.randint(34, 42)


def titled(rng: random.Random, text: str) -> str:
    """A title as documents write it."""
    return text.upper() if rng.random() < 0.4 else text.capitalize()


def fitted(canvas: Canvas, text: str, size: int, *, width: float, title: bool = False) -> int:
    """The largest size up to `size` at which `text` is at most `width` patches wide."""
    while size > 18 and canvas.width_of(text, size=size, title=title) > width:
        size -= 2
    return size


def finished(
    kind: str,
    looks: str,
    canvas: Canvas,
    facts: list[str],
    passage: str,
    queries: list[tuple[str, list[str]]],
) -> Page:
    """The page that `canvas` shows; each query comes with the facts it names besides the kind.

    `looks` is what can be seen on the page and is not written there: colours and shapes.
    """
    return Page(
        kind=kind,
        image=canvas.image,
        words=tuple(canvas.words),
        shapes=tuple(canvas.shapes),
        facts=frozenset([f"kind:{kind}", *facts]),
        transcript=" ".join([kind, *looks.split(), *(word.text for word in canvas.words)]),
        passage=passage,
        queries=tuple(Query(text, frozenset([f"kind:{kind}", *asked])) for text, asked in queries),
    )
