import random

import numpy as np
import pytest
from PIL import ImageChops

from mini.documents import vocabulary
from mini.documents.canvas import Word
from mini.documents.cells import CELL, NOTHING, NUM_CLASSES, NUMBER, cell_classes
from mini.documents.kinds import KINDS, draw_page
from mini.documents.page import HEIGHT, WIDTH
from mini.documents.sets import held_out_pages
from mini.documents.strips import SIDE, strip


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_page_says_what_stands_on_it(kind: str) -> None:
    for seed in range(40):
        page = draw_page(random.Random(seed), kind)
        assert page.image.size == (WIDTH, HEIGHT)
        assert page.kind == kind
        assert page.transcript.startswith(kind)
        assert {word.text for word in page.words} <= set(page.transcript.split())
        assert f"kind:{kind}" in page.facts
        assert len(page.queries) >= 4
        for query in page.queries:
            # A query asks for nothing that its own page lacks, and for more than its kind.
            assert query.facts <= page.facts
            assert len(query.facts) > 2


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_word_lies_on_the_page_where_ink_is(kind: str) -> None:
    for seed in range(20):
        page = draw_page(random.Random(seed), kind)
        for word in page.words:
            left, top, right, bottom = word.box
            assert 0 <= left < right <= WIDTH, word
            assert -4 <= top < bottom <= HEIGHT, word
            part = page.image.crop((round(left), round(top), round(right), round(bottom)))
            colours = part.getcolors(maxcolors=part.width * part.height)
            assert colours is not None
            assert len(colours) > 1, word


def test_a_seed_draws_the_same_page_and_another_seed_another() -> None:
    one, same, other = (draw_page(random.Random(seed), "form") for seed in (1, 1, 2))
    assert ImageChops.difference(one.image, same.image).getbbox() is None
    assert one.queries == same.queries
    assert ImageChops.difference(one.image, other.image).getbbox() is not None


def test_every_query_of_a_held_out_set_has_one_answer() -> None:
    held_out = held_out_pages(120)
    assert len(held_out.pages) == len(held_out.queries) == 120
    assert {page.kind for page in held_out.pages} == set(KINDS)
    for answer, query in enumerate(held_out.queries):
        answering = [at for at, page in enumerate(held_out.pages) if query.facts <= page.facts]
        assert answering == [answer]


def test_a_cell_is_the_word_that_fills_most_of_it() -> None:
    words = (
        Word("invoice", (0, 0, CELL * 1.2, CELL)),
        Word("42", (CELL * 1.2, 0, CELL * 2, CELL)),
        Word("red circle", (0, CELL, CELL, CELL * 2)),
    )
    classes = cell_classes(words, 3 * CELL, 2 * CELL)
    assert classes.shape == (2, 3)
    assert classes[0, 1] == NUMBER
    assert classes[0, 2] == classes[1, 1] == classes[1, 2] == NOTHING
    assert classes[0, 0] not in (NOTHING, NUMBER, classes[1, 0])
    assert classes[1, 0] >= 2 + len(vocabulary.READABLE)


def test_every_strip_is_crowded_and_readable() -> None:
    rng = random.Random(3)
    filled = []
    for _ in range(100):
        one = strip(rng)
        classes = cell_classes(one.words, SIDE, SIDE)
        assert classes.max() < NUM_CLASSES
        filled.append((classes != NOTHING).mean())
    assert np.mean(filled) > 0.8
