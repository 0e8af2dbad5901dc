"""Two ways to embed compared, where every figure can be computed from token ids."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from benchmarks.quality.compare.agreement import Cosines, cosines, rank_agreement
from benchmarks.quality.compare.comparison import Comparison, compare_sides
from benchmarks.quality.compare.data import read_data
from benchmarks.quality.compare.embedding import embed_sides
from benchmarks.quality.compare.plot import draw
from benchmarks.quality.compare.report import comparison_json, format_comparison
from benchmarks.quality.compare.retrieval import difference, ndcg
from benchmarks.quality.compare.spec import Spec
from benchmarks.quality.errors import DatasetError, SpecError
from serving import CheckpointError, TaskError
from tests.benchmarks.quality.corpora import QUESTIONS, TEXTS, Expected, FakeLoad, ndcg_at
from tests.http.oracle import Rows, maxsim, single


def compared(a: str, b: str, data: Path, queries: Path | None = None) -> tuple[Comparison, int]:
    """The comparison, and how many engines it has started."""
    load, inputs = FakeLoad(), read_data(data, queries)
    sides = embed_sides(Spec.parse(a), Spec.parse(b), inputs, load=load)
    return compare_sides(*sides, inputs), len(load.started)


def text_scores(expected: Expected, dim: int) -> Rows:
    """Of every document for every question."""
    documents = np.array([single(expected.passage(text), dim) for text in TEXTS.values()])
    queries = np.array([single(expected.query(text), dim) for text, _ in QUESTIONS.values()])
    return np.asarray(queries @ documents.T)


def ndcgs(scores: Rows) -> list[float]:
    return [
        ndcg_at(10, dict(zip(TEXTS, row, strict=True)), relevant)
        for row, (_, relevant) in zip(scores, QUESTIONS.values(), strict=True)
    ]


def test_fewer_dimensions_are_compared_from_one_run(
    texts: Path, expected: Expected, merged_float32: Path
) -> None:
    path = str(merged_float32 / "retrieval")
    found, num_runs = compared(path, f"{path}@dimensions=8", texts)
    assert num_runs == 1
    a, b = text_scores(expected, 64), text_scores(expected, 8)
    assert found.ndcg is not None
    assert found.ndcg.a == pytest.approx(ndcgs(a), abs=1e-6)
    assert found.ndcg.b == pytest.approx(ndcgs(b), abs=1e-6)
    assert found.ndcg.mean == pytest.approx(np.mean(ndcgs(b)) - np.mean(ndcgs(a)), abs=1e-6)
    first, second = np.argsort(-a, axis=1), np.argsort(-b, axis=1)
    for k in (1, 5):
        shared = [
            len(set(one) & set(other)) / k
            for one, other in zip(first[:, :k].tolist(), second[:, :k].tolist(), strict=True)
        ]
        assert found.agreement.overlap[k] == pytest.approx(shared)
    assert 6 in found.agreement.overlap  # there are no ten documents
    assert found.agreement.top1.tolist() == (first[:, 0] == second[:, 0]).tolist()
    taus = [stats.kendalltau(*pair).statistic for pair in zip(a, b, strict=True)]
    rhos = [stats.spearmanr(*pair).statistic for pair in zip(a, b, strict=True)]
    assert found.agreement.kendall == pytest.approx(taus)
    assert found.agreement.spearman == pytest.approx(rhos)
    assert found.cosines == "A has 64 dimensions and B 8"
    assert found.document_bytes == (256, 32)


def test_int8_is_compared_by_cosine_too(
    texts: Path, expected: Expected, merged_float32: Path
) -> None:
    path = str(merged_float32 / "retrieval")
    found, num_runs = compared(path, f"{path}@precision=int8", texts)
    vectors = [single(expected.query(text)) for text, _ in QUESTIONS.values()]
    vectors += [single(expected.passage(text)) for text in TEXTS.values()]
    rounded = [np.round(v / np.abs(v).max() * 127) for v in vectors]
    values = [v @ r / np.linalg.norm(r) for v, r in zip(vectors, rounded, strict=True)]
    assert num_runs == 1
    assert isinstance(found.cosines, Cosines)
    assert found.cosines.values == pytest.approx(values, abs=1e-6)
    assert found.cosines.percentiles[50] == pytest.approx(np.median(values), abs=1e-6)
    assert found.cosines.percentiles[0] == pytest.approx(min(values), abs=1e-6)
    assert 0.99 < min(values) < 1


def test_single_and_multi_vectors_come_from_one_run(
    texts: Path, expected: Expected, merged_float32: Path
) -> None:
    path = str(merged_float32 / "retrieval")
    found, num_runs = compared(path, f"{path}@vectors=multi", texts)
    assert (num_runs, found.cosines) == (1, "A and B are single vectors and multi-vectors")
    scores = [
        [maxsim(expected.query(text), expected.passage(other)) for other in TEXTS.values()]
        for text, _ in QUESTIONS.values()
    ]
    assert found.ndcg is not None
    assert found.ndcg.b == pytest.approx(ndcgs(np.array(scores)), abs=1e-6)
    tokens = [len(expected.passage(text)) for text in TEXTS.values()]
    assert found.document_bytes[1] == pytest.approx(np.mean(tokens) * 32 * 4)


def test_the_same_on_both_sides_is_the_same(pages: Path, merged_float32: Path) -> None:
    path = str(merged_float32 / "retrieval")
    found, _ = compared(path, f"{path}@dimensions=64", pages)
    assert found.ndcg is not None
    assert (found.ndcg.mean, found.ndcg.low, found.ndcg.high) == (0, 0, 0)
    assert isinstance(found.cosines, Cosines)
    assert found.cosines.values == pytest.approx(1)
    assert set(found.agreement.kendall) == {1.0}


def test_another_dtype_or_checkpoint_is_another_run(texts: Path, merged_float32: Path) -> None:
    path = str(merged_float32 / "retrieval")
    load, inputs = FakeLoad(), read_data(texts, None)
    heard: list[str] = []
    embed_sides(
        Spec.parse(path),
        Spec.parse(f"{path}@dtype=bfloat16"),
        inputs,
        load=load,
        on_run=lambda run: heard.append(run.dtype),
    )
    assert [settings.dtype for _, _, settings in load.started] == heard == ["float32", "bfloat16"]
    _, num_runs = compared(path, str(merged_float32 / "code"), texts)
    assert num_runs == 2


def test_without_judgments_as_rankings_are_the_reference(
    tmp_path: Path, merged_float32: Path
) -> None:
    (tmp_path / "documents.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in TEXTS.values())
    )
    (tmp_path / "queries.txt").write_text("sunset\n\nwhat is the total?\n")
    path = str(merged_float32 / "retrieval")
    found, _ = compared(
        path, f"{path}@precision=binary", tmp_path / "documents.jsonl", tmp_path / "queries.txt"
    )
    assert (found.num_documents, found.num_queries, found.ndcg) == (6, 2, None)
    assert "no judgments here" in format_comparison(found)
    assert json.loads(comparison_json(found))["ndcg"] is None


def test_a_directory_of_images_is_a_corpus(tmp_path: Path, merged_float32: Path) -> None:
    images = tmp_path / "scans" / "march"
    images.mkdir(parents=True)
    for number, size in enumerate([(56, 56), (84, 56), (112, 84)]):
        Image.new("RGB", size).save(images / f"{number}.png")
    (tmp_path / "queries.txt").write_text("an invoice\n")
    data = read_data(tmp_path / "scans", tmp_path / "queries.txt")
    assert data.documents.ids == ["march/0.png", "march/1.png", "march/2.png"]
    path = str(merged_float32 / "retrieval")
    found, _ = compared(path, path, tmp_path / "scans", tmp_path / "queries.txt")
    assert found.num_documents == 3


def test_what_cannot_be_compared_on_is_refused(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("a\n")
    (tmp_path / "documents.pdf").write_text("a")
    (tmp_path / "empty").mkdir()
    for data, queries, says in [
        (pairs, None, "holds pairs"),
        (tmp_path, None, "holds no corpus"),
        (tmp_path / "empty", tmp_path / "queries.txt", "holds no images"),
        (tmp_path / "nowhere.jsonl", tmp_path / "queries.txt", "is not a file"),
        (tmp_path / "documents.pdf", tmp_path / "queries.txt", "is none of"),
    ]:
        with pytest.raises(DatasetError, match=says):
            read_data(data, queries)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("@size=3", "'size=3' is not an option"),
        ("@dtype=int4", "dtype is one of"),
        ("@precision=int8,precision=binary", "once"),
        ("@dimensions=0", "from 1 to 64"),
        ("@dimensions=65", "from 1 to 64"),
        ("@dimensions=many", "from 1 to 64"),
        ("@vectors=multi,dimensions=8", "Multi-vectors have one dimension"),
    ],
)
def test_a_spec_that_is_wrong_says_what_is_right(
    options: str, says: str, merged_float32: Path
) -> None:
    with pytest.raises(SpecError, match=says):
        Spec.parse(f"{merged_float32 / 'retrieval'}{options}")


def test_a_spec_names_one_task(merged_float32: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="Name one"):
        Spec.parse(str(merged_float32))
    named = Spec.parse(f"{merged_float32}@task=code,dimensions=8")
    assert (named.task, named.run) == ("code", Spec.parse(str(merged_float32 / "code")).run)
    with pytest.raises(CheckpointError):
        Spec.parse(f"{tmp_path / 'me@home'}@dimensions=8")


def test_equal_scores_are_ranked_as_trec_eval_ranks_them() -> None:
    documents, relevant = ["a", "b", "c"], {"q": {"a": 1}}
    tied = np.zeros((1, 3), dtype=np.float32)
    assert ndcg(tied, ["q"], documents, relevant, 10) == pytest.approx(1 / np.log2(4))
    found = rank_agreement(tied, np.array([[1, 2, 3]], dtype=np.float32), documents, [1])
    assert found.top1.tolist() == [1.0]
    assert np.isnan(found.kendall[0])
    assert np.isnan(found.spearman[0])


def test_an_interval_holds_the_mean_and_tightens_with_more_queries() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for num_queries in (20, 2000):
        a = rng.random(num_queries)
        found = difference(a, a + rng.normal(0.01, 0.1, num_queries))
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.mean < found.high
        # The normal approximation of the mean's error.
        error = (found.b - found.a).std() / num_queries**0.5
        assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 5
    alone = difference(np.ones(1), np.zeros(1))
    assert (alone.mean, alone.low, alone.high) == (-1, None, None)


def test_multi_vectors_of_other_lengths_lie_in_no_common_space() -> None:
    import torch

    assert (
        cosines([torch.ones(3, 2)], [torch.ones(4, 2)]) == "an input has 3 tokens in A and 4 in B"
    )
    found = cosines([torch.eye(2)], [torch.tensor([[1.0, 0.0], [1.0, 0.0]])])
    assert isinstance(found, Cosines)
    assert found.values.tolist() == [0.5]


def test_a_comparison_is_a_table_a_document_and_a_picture(
    texts: Path, merged_float32: Path
) -> None:
    path = str(merged_float32 / "retrieval")
    for options in ("precision=int8", "dimensions=8"):
        found, _ = compared(path, f"{path}@{options}", texts)
        table = format_comparison(found)
        for said in (f"B  {path}@{options}", "bytes a document", "overlap@5", "nDCG@10, B - A"):
            assert said in table
        written = json.loads(comparison_json(found))
        assert written["ndcg"]["difference"] == pytest.approx(found.ndcg.mean if found.ndcg else 1)
        assert ("not_comparable" in written["cosine"]) == (options == "dimensions=8")
        file = io.BytesIO()
        draw(found).savefig(file, format="png")
        with Image.open(file) as picture:
            assert picture.width == 1500
