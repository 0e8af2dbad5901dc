"""Held-out pages, and queries that each have one answer among them."""

import random
from dataclasses import dataclass

from mini.documents.kinds import KINDS, draw_page
from mini.documents.page import Page, Query

HELD_OUT_SEED = 20261128
"""Pages to judge by come from this seed; training seeds its pages below it."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Pages, and as many queries: the only answer of each is the page in its own place."""

    pages: tuple[Page, ...]
    queries: tuple[Query, ...]


def held_out_pages(count: int, seed: int = HELD_OUT_SEED) -> HeldOut:
    """`count` pages, as many of each kind as possible, and one query for each.

    A query is kept only if no other page has the facts it names.

    Raises:
        ValueError: a page has no query that it alone answers; take another seed.
    """
    rng = random.Random(seed)
    kinds = sorted(KINDS)
    pages = tuple(draw_page(rng, kinds[at % len(kinds)]) for at in range(count))
    queries = []
    for at, page in enumerate(pages):
        asked = [
            query
            for query in rng.sample(page.queries, len(page.queries))
            if sum(query.facts <= other.facts for other in pages) == 1
        ]
        if not asked:
            raise ValueError(
                f"page {at} of seed {seed} has no query of its own; take another seed."
            )
        queries.append(asked[0])
    return HeldOut(pages, tuple(queries))
