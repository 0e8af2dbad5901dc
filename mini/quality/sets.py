"""What the model is judged by: held-out pages, sentences and functions, drawn from seeds of their own."""

import random
from dataclasses import dataclass

from mini.documents.sets import HELD_OUT_SEED, HeldOut, held_out_pages
from mini.texts.functions import Function, function
from mini.texts.paraphrases import Pair, pair

NUM_PAGES, NUM_PAIRS, NUM_FUNCTIONS = 500, 1000, 500


@dataclass(frozen=True, slots=True)
class Sets:
    """One set for each task."""

    pages: HeldOut
    pairs: tuple[Pair, ...]
    functions: tuple[Function, ...]


def draw_sets() -> Sets:
    """The same sets each time; no two functions mean the same."""
    rng = random.Random(HELD_OUT_SEED + 1)
    pairs = tuple(pair(rng) for _ in range(NUM_PAIRS))
    functions: dict[tuple[str, ...], Function] = {}
    while len(functions) < NUM_FUNCTIONS:
        one = function(rng)
        functions.setdefault(one.meaning, one)
    return Sets(held_out_pages(NUM_PAGES), pairs, tuple(functions.values()))
