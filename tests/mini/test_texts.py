import random
from types import SimpleNamespace
from typing import Any

import pytest

from mini.texts.functions import function
from mini.texts.paraphrases import pair, sentence, statement


def test_equal_sentences_have_similarity_one_and_every_degree_occurs() -> None:
    rng = random.Random(0)
    pairs = [pair(rng) for _ in range(600)]
    assert {round(one.similarity, 1) for one in pairs} == {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
    assert all(one.similarity == 1 for one in pairs if one.left == one.right)
    # A paraphrase is more than a copy.
    assert any(one.similarity == 1 and one.left != one.right for one in pairs)


def test_a_statement_is_said_in_many_ways_that_all_name_who_and_where() -> None:
    rng = random.Random(1)
    said = statement(rng)
    ways = {sentence(rng, said) for _ in range(200)}
    assert len(ways) > 20
    assert all(said.person in way and said.city in way for way in ways)


def _given(thing: str) -> SimpleNamespace:
    fields = ("price", "weight", "size", "age", "length", "score", "rating", "stock")
    things = [
        SimpleNamespace(**{field: (7 * at + 13 * place) % 100 for at, field in enumerate(fields)})
        for place in range(60)
    ]
    return SimpleNamespace(**{thing: things})


@pytest.mark.parametrize("seed", range(60))
def test_a_function_runs_and_picks_what_its_docstring_says(seed: int) -> None:
    made = function(random.Random(seed))
    thing, condition, field, number, _, _ = made.meaning
    scope: dict[str, Any] = {}
    if made.code.startswith("lambda"):
        run = eval(made.code)
    else:
        exec(made.code, scope)
        run = next(value for name, value in scope.items() if name != "__builtins__")
    given = _given(thing)
    picked = [
        one for one in getattr(given, thing) if eval(condition.format(x="one", f=field, n=number))
    ]
    if "count" in made.docstring.lower():
        assert run(given) == len(picked)
    elif picked:
        run(given)
    assert field in made.docstring
    assert number in made.docstring
    assert thing in made.query
