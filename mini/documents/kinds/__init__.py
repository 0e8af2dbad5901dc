"""The kinds of pages, each drawn by a function of its own."""

import random
from collections.abc import Callable

from mini.documents.kinds.chart import chart
from mini.documents.kinds.form import form
from mini.documents.kinds.invoice import invoice
from mini.documents.kinds.sign import sign
from mini.documents.kinds.slide import slide
from mini.documents.kinds.table import table
from mini.documents.page import Page

KINDS: dict[str, Callable[[random.Random], Page]] = {
    "chart": chart,
    "form": form,
    "invoice": invoice,
    "sign": sign,
    "slide": slide,
    "table": table,
}


def draw_page(rng: random.Random, kind: str | None = None) -> Page:
    """A page of `kind`, or of a kind that `rng` picks."""
    return KINDS[kind or rng.choice(sorted(KINDS))](rng)
