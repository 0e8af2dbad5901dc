"""Tasks run by mteb over computable engines: the figures in its files are those that a formula gives."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from mteb.models import EncoderProtocol
from scipy import stats
from torch import Tensor

from benchmarks.quality.adapters import Choice
from benchmarks.quality.errors import FetchError, TaskNameError
from benchmarks.quality.local_task import local_task
from benchmarks.quality.model import PAPER_MAX_PIXELS, Measured, MeasuredModel
from benchmarks.quality.representation import Representation
from benchmarks.quality.run import Run, TaskScore, run_tasks
from benchmarks.quality.source import Ask, Item
from serving.identity import joint_digest
from serving.manifest import find_tasks, read_manifest
from tests.benchmarks.quality.corpora import (
    PAGES,
    PAIRS,
    QUESTIONS,
    TEXTS,
    Expected,
    FakeLoad,
    fake_source,
    measured,
    ndcg_at,
    write_texts,
)
from tests.http.oracle import maxsim, single


def run(
    directory: Path, models: Path, output: Path, what: Measured | None = None
) -> tuple[TaskScore, dict[str, Any]]:
    """The score of one directory, and what mteb has written of it."""
    source = fake_source(models)
    (score,) = run_tasks([local_task(directory)], source, what or measured(), Run(output))
    written = json.loads(score.path.read_text(encoding="utf-8"))
    (scores,) = written["scores"]["test"]
    return score, scores


def page_scores(expected: Expected, *, multi: bool) -> dict[str, dict[str, float]]:
    """Of every page for every query, from token ids alone."""
    queries = dict.fromkeys(query for _, queries in PAGES.values() for query in queries)
    if multi:
        return {
            query: {
                name: maxsim(expected.query(query), expected.page_prompt(name)) for name in PAGES
            }
            for query in queries
        }
    return {
        query: {
            name: float(single(expected.query(query)) @ single(expected.page(name)))
            for name in PAGES
        }
        for query in queries
    }


@pytest.mark.parametrize("vectors", ["single", "multi"])
def test_ndcg_is_that_of_the_ranking_that_the_vectors_give(
    vectors: Any, pages: Path, expected: Expected, merged_float32: Path, tmp_path: Path
) -> None:
    score, written = run(pages, merged_float32, tmp_path, measured(vectors))
    by_query = page_scores(expected, multi=vectors == "multi")
    for k in (1, 3, 5):
        values = [
            ndcg_at(k, found, {name: 1 for name, (_, asked) in PAGES.items() if query in asked})
            for query, found in by_query.items()
        ]
        # Some queries are answered well and some badly, or the figure would say little.
        assert k < 5 or len(set(values)) > 1
        assert written[f"ndcg_at_{k}"] == pytest.approx(np.mean(values), abs=1e-5)
    assert (score.metric, score.adapter) == ("ndcg_at_5", "retrieval")
    assert score.score == pytest.approx(written["ndcg_at_5"])


@pytest.mark.parametrize(("dimensions", "prompt"), [(None, None), (8, None), (None, "query")])
def test_texts_have_the_prefix_of_their_side(
    dimensions: int | None,
    prompt: str | None,
    texts: Path,
    expected: Expected,
    merged_float32: Path,
    tmp_path: Path,
) -> None:
    what = measured(dimensions=dimensions, choice=Choice(document_prompt=prompt))
    _, written = run(texts, merged_float32, tmp_path, what)
    document = expected.query if prompt == "query" else expected.passage
    dim = dimensions or 64
    values = []
    for query, relevant in QUESTIONS.values():
        vector = single(expected.query(query), dim)
        found = {id_: float(vector @ single(document(text), dim)) for id_, text in TEXTS.items()}
        values.append(ndcg_at(10, found, relevant))
    assert written["ndcg_at_10"] == pytest.approx(np.mean(values), abs=1e-5)


def test_similarity_of_pairs_has_one_prefix_on_both_sides(
    pairs: Path, expected: Expected, merged_float32: Path, tmp_path: Path
) -> None:
    score, written = run(pairs, merged_float32, tmp_path)
    cosines = [
        single(expected.query(one)) @ single(expected.query(other)) for one, other, _ in PAIRS
    ]
    wanted = [value for _, _, value in PAIRS]
    assert score.adapter == "text-matching"
    assert written["cosine_spearman"] == pytest.approx(stats.spearmanr(cosines, wanted).statistic)
    assert written["pearson"] == pytest.approx(stats.pearsonr(cosines, wanted).statistic, abs=1e-5)


@pytest.mark.parametrize("precision", ["int8", "binary"])
def test_less_precise_vectors_are_scored_as_an_index_would(
    precision: Any, texts: Path, expected: Expected, merged_float32: Path, tmp_path: Path
) -> None:
    _, written = run(texts, merged_float32, tmp_path, measured(precision=precision))

    def kept(ids: list[int]) -> Any:
        vector = single(ids)
        if precision == "binary":
            return np.where(vector > 0, 1, -1)
        return np.round(vector / np.abs(vector).max() * 127)

    values = []
    for query, relevant in QUESTIONS.values():
        asked = kept(expected.query(query))
        stored = {id_: kept(expected.passage(text)) for id_, text in TEXTS.items()}
        found = {id_: float(asked @ one / np.linalg.norm(one)) for id_, one in stored.items()}
        values.append(ndcg_at(10, found, relevant))
    assert written["ndcg_at_10"] == pytest.approx(np.mean(values), abs=1e-5)


def test_results_lie_where_mteb_looks_for_them_under_the_checkpoints_identity(
    pages: Path, merged_float32: Path, tmp_path: Path
) -> None:
    score, _ = run(pages, merged_float32, tmp_path, measured("multi"))
    digest = joint_digest(read_manifest(path) for path in find_tasks(merged_float32).values())
    settings = "max_pixels_602112__vectors_multi"
    place = f"local__jina-v4-mini/{digest}/experiments/{settings}/pages.json"
    assert score.path.relative_to(tmp_path / "results") == Path(place)
    (loaded,) = mteb.ResultCache(tmp_path).load_results(load_experiments=True).model_results
    assert (loaded.model_name, loaded.model_revision) == ("local/jina-v4-mini", digest)
    (task,) = loaded.task_results
    assert task.task_name == "pages"
    assert task.get_score() == pytest.approx(score.score)
    meta = json.loads((score.path.parent / "model_meta.json").read_text(encoding="utf-8"))
    assert meta["similarity_fn_name"] == "MaxSim"
    assert meta["embed_dim"] == 32


def test_the_papers_settings_are_filed_without_settings() -> None:
    assert Measured(Representation(), Choice(), PAPER_MAX_PIXELS).differing() == {}
    assert measured("multi", choice=Choice("code")).differing() == {
        "vectors": "multi",
        "max_pixels": 602112,
        "adapter": "code",
    }


def test_another_dtype_is_filed_apart_also_when_the_environment_asks_for_it(
    texts: Path, merged_float32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYVEC_DTYPE", "bfloat16")
    score, _ = run(texts, merged_float32, tmp_path)
    assert score.path.parent.name == "dtype_bfloat16__max_pixels_602112"
    monkeypatch.setenv("POLYVEC_DTYPE", "float32")
    assert run(texts, merged_float32, tmp_path)[0].path.parent.name == "max_pixels_602112"


def test_a_changed_directory_is_measured_again(merged_float32: Path, tmp_path: Path) -> None:
    directory = write_texts(tmp_path / "texts")
    before, _ = run(directory, merged_float32, tmp_path)
    judged = directory / "qrels" / "test.tsv"
    judged.write_text(judged.read_text().replace("q3\td3", "q3\td6"))
    after, _ = run(directory, merged_float32, tmp_path)
    assert before.path == after.path
    assert before.score != after.score
    assert not after.earlier


def test_what_has_results_of_the_same_data_is_not_measured_again(
    texts: Path, merged_float32: Path, tmp_path: Path
) -> None:
    load = FakeLoad()

    def score(*, overwrite: bool) -> TaskScore:
        source = fake_source(merged_float32, load)
        return run_tasks([local_task(texts)], source, measured(), Run(tmp_path, overwrite))[0]

    first, second = score(overwrite=False), score(overwrite=False)
    assert (first.earlier, second.earlier, len(load.started)) == (False, True, 1)
    assert first.score == pytest.approx(second.score)
    assert not score(overwrite=True).earlier
    assert len(load.started) == 2


def test_two_directories_of_one_name_are_refused(
    texts: Path, merged_float32: Path, tmp_path: Path
) -> None:
    tasks = [local_task(texts), local_task(write_texts(tmp_path / "texts"))]
    with pytest.raises(TaskNameError, match="2 tasks have the name 'texts'"):
        run_tasks(tasks, fake_source(merged_float32), measured(), Run(tmp_path))


def test_engines_start_once_for_the_adapters_that_are_needed(
    pages: Path, texts: Path, merged_float32: Path, tmp_path: Path
) -> None:
    load, heard = FakeLoad(), list[str]()
    run_tasks(
        [local_task(pages), local_task(texts)],
        fake_source(merged_float32, load),
        measured(),
        Run(tmp_path),
        lambda score: heard.append(score.task),
    )
    ((path, tasks, _),) = load.started
    assert (path, tasks, heard) == (merged_float32, ("retrieval",), ["pages", "texts"])


def test_data_that_cannot_be_fetched_is_named_before_an_engine_starts(
    merged_float32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, load = mteb.get_task("VidoreDocVQARetrieval"), FakeLoad()

    def unreachable(**kwargs: object) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(task, "load_data", unreachable)
    with pytest.raises(FetchError, match=r"mteb/docvqa_test_subsampled_beir at revision \w+"):
        run_tasks([task], fake_source(merged_float32, load), measured(), Run(tmp_path))
    assert load.started == []


@pytest.mark.parametrize(
    ("name", "vectors", "models", "says"),
    [
        ("STS12", "multi", ".", "one vector an input"),
        ("STS12", "single", "code", "with the adapter 'text-matching'; here are ['code']"),
        ("AudioCapsT2ARetrieval", "single", ".", "needs audio"),
    ],
)
def test_a_task_that_does_not_fit_is_refused_before_anything_is_fetched(
    name: str, vectors: Any, models: str, says: str, merged_float32: Path, tmp_path: Path
) -> None:
    source = fake_source(merged_float32 / models)
    with pytest.raises(TaskNameError) as caught:
        run_tasks([mteb.get_task(name)], source, measured(vectors), Run(tmp_path))
    assert says in str(caught.value)


def test_the_model_has_the_shape_of_mtebs_encoders(merged_float32: Path) -> None:
    assert isinstance(MeasuredModel(fake_source(merged_float32), measured()), EncoderProtocol)


def test_pages_are_reduced_to_what_was_asked_for_and_engines_take_that_much(
    merged_float32: Path,
) -> None:
    load = FakeLoad()
    source = type(fake_source(merged_float32)).of(
        merged_float32, max_pixels=PAPER_MAX_PIXELS, load=load
    )
    source.start(["retrieval"])
    ((_, _, settings),) = load.started
    assert settings.max_pixels == PAPER_MAX_PIXELS
    # A page of that area has more tokens than the checkpoint's longest text.
    assert settings.max_model_tokens == PAPER_MAX_PIXELS // 784 + 64
    source.close()


def test_a_text_that_reads_like_an_image_is_a_text(merged_float32: Path) -> None:
    source = fake_source(merged_float32)
    source.start(["retrieval"])
    items: Sequence[Item] = ["data:image/png;base64,AAAA", "https://example.com/a.png"]
    vectors: list[Tensor] = source.embed(items, Ask("retrieval", "query", "single"))
    assert [tuple(vector.shape) for vector in vectors] == [(64,), (64,)]
    source.close()
