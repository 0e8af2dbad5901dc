"""A page: its picture, what stands on it, and the queries that ask for it.

The kinds of pages are drawn in `mini.documents.kinds`; this module only says what a page is.
"""

from dataclasses import dataclass

from PIL import Image

from mini.documents.canvas import Word

WIDTH = HEIGHT = 448
"""Pixels of a page as it is drawn; the model sees it at half of that."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question in words, and the facts that a page must have to be its answer."""

    text: str
    facts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Page:
    """A document of one page.

    `facts` are everything that a query may ask for ("item:lamp"), `transcript` is what stands on the page,
    read from top to bottom, and `passage` says the same in a sentence.
    """

    kind: str
    image: Image.Image
    words: tuple[Word, ...]
    shapes: tuple[Word, ...]
    facts: frozenset[str]
    transcript: str
    passage: str
    queries: tuple[Query, ...]
