"""Many texts in one message, and what comes back of them: vLLM's scheduler around our two methods is left out."""

from typing import Any

import pytest
import torch

from serving.engine.recipe import Recipe
from serving.engine.worker import EXTRA
from serving.engine.worker.parcel import ParcelRecipe, member, members, places

RECIPES = [
    ParcelRecipe((3, 1, 8), single=True, multi=None),
    ParcelRecipe((3,), single=False, multi="float16"),
    ParcelRecipe((2, 2), single=True, multi="float32"),
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_parcels_recipe_comes_out_of_its_numbers(recipe: ParcelRecipe) -> None:
    assert ParcelRecipe.from_numbers(recipe.to_numbers()) == recipe
    for length in recipe.lengths:
        numbers = recipe.of_text(length).to_numbers()
        assert ParcelRecipe.from_numbers(numbers) is None
        text = Recipe.from_numbers(numbers, normalized=True, dim=None)
        assert [(span.start, span.stop) for span in text.spans] == [(0, length)] * recipe.single
        assert text.multi == recipe.multi


def test_ids_say_where_an_output_belongs() -> None:
    assert places("polyvec-7") == ("polyvec-7", None)
    assert places(member("polyvec-7", 12)) == ("polyvec-7", range(12, 13))
    assert places(members("polyvec-7", 3, 9)) == ("polyvec-7", range(3, 10))


def parcel(texts: list[list[int]]) -> Any:
    from vllm import PoolingParams
    from vllm.v1.request import Request

    recipe = ParcelRecipe(tuple(map(len, texts)), single=True, multi=None)
    return Request(
        request_id="polyvec-7",
        prompt_token_ids=[token for text in texts for token in text],
        sampling_params=None,
        pooling_params=PoolingParams(
            task="embed", dimensions=16, extra_kwargs={EXTRA: recipe.to_numbers()}
        ),
        client_index=2,
        arrival_time=5.0,
    )


@pytest.mark.engine
def test_a_parcel_becomes_requests_of_its_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.core.sched.scheduler import Scheduler

    from serving.engine.worker.scheduler import ParcelScheduler

    queued: list[Any] = []
    monkeypatch.setattr(Scheduler, "add_request", lambda self, request: queued.append(request))
    texts = [[5, 6, 7], [8], [9, 10, 11]]
    scheduler = object.__new__(ParcelScheduler)
    scheduler.add_request(parcel(texts))
    assert [request.prompt_token_ids for request in queued] == texts
    assert [request.request_id for request in queued] == [member("polyvec-7", i) for i in range(3)]
    for request, text in zip(queued, texts, strict=True):
        assert (request.client_index, request.arrival_time) == (2, 5.0)
        assert (request.pooling_params.task, request.pooling_params.dimensions) == ("embed", 16)
        numbers = request.pooling_params.extra_kwargs[EXTRA]
        assert numbers == {"spans": (0, len(text)), "multi": None}
    scheduler.add_request(queued[0])
    assert queued[3] is queued[0]


def output(request_id: str, rows: torch.Tensor | None) -> Any:
    from vllm.v1.engine import EngineCoreOutput

    return EngineCoreOutput(request_id=request_id, new_token_ids=[], pooling_output=rows)


@pytest.mark.engine
def test_rows_of_neighbours_in_one_parcel_are_joined_and_nothing_else_is() -> None:
    from serving.engine.worker.scheduler import _joined

    row = {index: torch.full((1, 4), float(index)) for index in range(9)}
    outputs = [
        output(member("a", 0), row[0]),
        output(member("a", 1), row[1]),
        output(member("a", 3), row[3]),  # its neighbour was given up
        output(member("b", 4), row[4]),  # another parcel, as if it went on
        output("single", row[5]),
        output(member("b", 5), torch.ones(2, 4)),  # multi-vectors
        output(member("b", 6), row[6]),
        output(member("b", 7), None),
        output(member("b", 8), row[8]),
    ]
    joined = _joined(outputs)
    assert [one.request_id for one in joined] == [
        members("a", 0, 1),
        member("a", 3),
        member("b", 4),
        "single",
        member("b", 5),
        member("b", 6),
        member("b", 7),
        member("b", 8),
    ]
    assert torch.equal(joined[0].pooling_output, torch.cat([row[0], row[1]]))
    assert [
        one.pooling_output is outputs[at].pooling_output
        for one, at in zip(joined[1:], range(2, 9), strict=True)
    ] == [True] * 7
