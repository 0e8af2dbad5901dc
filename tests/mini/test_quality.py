"""The committed weights on a part of the held-out sets, in transformers and PEFT: seconds instead of minutes."""

import json

import pytest
import torch

from mini.model.checkpoint import TASKS
from mini.quality import unmerged
from mini.quality.sets import draw_sets
from tests.mini.paths import CHECKPOINT, RESULT


@pytest.fixture(scope="module")
def rows() -> dict[str, unmerged.Row]:
    sets = draw_sets(num_pages=120, num_pairs=200, num_functions=100)
    learner = unmerged.load(CHECKPOINT)
    return {row.adapter: row for row in unmerged.rows(learner, sets)}


def test_pages_are_found_by_what_stands_on_them(rows: dict[str, unmerged.Row]) -> None:
    assert rows["retrieval"].retrieval_first.mean >= 0.9
    assert rows["retrieval"].retrieval.mean >= 0.95


def test_each_adapter_beats_the_base_and_the_others_on_its_own_task(
    rows: dict[str, unmerged.Row],
) -> None:
    assert list(rows) == [unmerged.BASE, *TASKS]
    for task, figure in (
        ("retrieval", "retrieval"),
        ("text-matching", "text_matching"),
        ("code", "code"),
    ):
        own = getattr(rows[task], figure).mean
        others = [getattr(row, figure).mean for name, row in rows.items() if name != task]
        assert len(others) == 3
        assert own > max(others), (task, own, others)


@torch.no_grad()
def test_the_pictures_decide_and_not_their_order() -> None:
    sets = draw_sets(num_pages=30, num_pairs=2, num_functions=1)
    queries, pages = unmerged.page_vectors(unmerged.load(CHECKPOINT), sets, "retrieval")
    scores = queries @ pages.T
    right = scores.diagonal()
    # Shifted by one, every query is scored against a page of another kind.
    assert (right > scores.roll(1, dims=1).diagonal() + 0.1).all()


def test_the_recorded_figures_meet_what_the_model_is_for() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    kept = {row["name"]: row for row in result["kept"]}
    single = kept["single, 256 dimensions, float32"]
    assert single["first"]["mean"] >= 0.80
    assert single["ndcg"]["mean"] >= 0.88
    assert kept["multi, 79 x 128, float16"]["ndcg"]["mean"] > single["ndcg"]["mean"]
    for smaller in ("single, 128 dimensions, float32", "single, 256 dimensions, int8"):
        assert single["ndcg"]["mean"] - kept[smaller]["ndcg"]["mean"] < 0.03
    assert max(result["merged_against_unmerged"].values()) < 5e-4


@pytest.mark.parametrize("vectors", ["single", "multi"])
def test_mtebs_recorded_results_of_a_server_and_of_the_python_api_are_equal(vectors: str) -> None:
    api, server = (
        json.loads((RESULT.parent / "mteb-mini" / f"{way}-{vectors}.json").read_text())
        for way in ("python-api", "server")
    )
    assert api["dataset_revision"] == server["dataset_revision"]
    (ours,), (theirs,) = api["scores"]["test"], server["scores"]["test"]
    assert ours.keys() == theirs.keys()
    # mteb writes NaN where all queries are alike, and NaN differs from itself.
    differ = [name for name, value in ours.items() if value == value and value != theirs[name]]
    assert differ == []
    recorded = {row["name"]: row for row in json.loads(RESULT.read_text())["kept"]}
    name = "single, 256 dimensions, float32" if vectors == "single" else "multi, 79 x 128, float16"
    assert ours["ndcg_at_10"] == pytest.approx(recorded[name]["ndcg"]["mean"], abs=1e-4)
