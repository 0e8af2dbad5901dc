"""What the model is judged by: held-out pages, sentences and functions, drawn from seeds of their own."""

import random
from dataclasses import dataclass

from mini.documents.sets import HELD_OUT_SEED, HeldOut, held_out_pages
from mini.texts.functions import Function, function
from mini.texts.paraphrases import Pair, pair


@dataclass(frozen=True, slots=True)
class Sets:
    """One set for each task."""

    pages: HeldOut
    pairs: tuple[Pair, ...]
    functions: tuple[Function, ...]


def draw_sets(num_pages: int = 500, num_pairs: int = 1000, num_functions: int = 500) -> Sets:
    """The same sets each time; no two functions mean the same."""
    rng = random.Random(HELD_OUT_SEED + 1)
    pairs = tuple(pair(rng) for _ in range(num_pairs))
    functions: dict[tuple[str, ...], Function] = {}
    while len(functions) < num_functions:
        one = function(rng)
        functions.setdefault(one.meaning, one)
    return Sets(held_out_pages(num_pages), pairs, tuple(functions.values()))
