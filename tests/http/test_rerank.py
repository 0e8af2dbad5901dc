"""`POST /v1/rerank` and `/v1/score`: late interaction over HTTP, against formulas."""

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Golden
from tests.http.live import Live
from tests.http.oracle import PASSAGE, QUERY, Oracle, maxsim

MODEL = "jina-embeddings-v4"
ASKED = "cities in Germany"
DOCUMENTS = ["something else", ASKED, "", "海滩上美丽的日落", ASKED]
Post = Callable[..., Any]


@pytest.fixture
def rerank(live: Live) -> Post:
    return _poster(live, "/v1/rerank")


@pytest.fixture
def score(live: Live) -> Post:
    return _poster(live, "/v1/score")


def _poster(live: Live, path: str) -> Post:
    def post(status: int = 200, **body: Any) -> Any:
        answer = live.client.post(path, json={"model": MODEL, **body})
        assert answer.status_code == status, answer.text
        return answer.json()

    return post


def scores_of(
    oracle: Oracle, query: str, documents: list[str], prefix: str = PASSAGE
) -> list[float]:
    ids = oracle.ids(QUERY + query)
    return [maxsim(ids, oracle.ids(prefix + one)) / len(ids) for one in documents]


def close(expected: list[float]) -> object:
    return pytest.approx(expected, abs=2e-6)


def picture(image: Path) -> dict[str, str]:
    return {"image": base64.b64encode(image.read_bytes()).decode("ascii")}


def test_documents_are_ranked_by_maxsim_with_the_prefixes_of_their_sides(
    rerank: Post, oracle: Oracle
) -> None:
    answer = rerank(query=ASKED, documents=DOCUMENTS)
    expected = scores_of(oracle, ASKED, DOCUMENTS)
    order = sorted(range(len(DOCUMENTS)), key=lambda index: -expected[index])
    assert [result["index"] for result in answer["results"]] == order
    got = [result["relevance_score"] for result in answer["results"]]
    assert got == close([expected[index] for index in order])
    assert [result["document"] for result in answer["results"]] == [
        {"text": DOCUMENTS[index]} for index in order
    ]


def test_an_answer_has_jinas_and_coheres_shape(rerank: Post, oracle: Oracle) -> None:
    answer = rerank(query=ASKED, documents=DOCUMENTS)
    num_tokens = len(oracle.ids(QUERY + ASKED)) + sum(
        len(oracle.ids(PASSAGE + one)) for one in DOCUMENTS
    )
    assert answer["usage"] == {"total_tokens": num_tokens, "prompt_tokens": num_tokens}
    assert (answer["model"], answer["object"]) == (MODEL, "list")
    assert answer["meta"] == {"api_version": {"version": "2"}}
    assert answer["id"]


def test_equal_documents_keep_their_order_and_top_n_cuts(rerank: Post) -> None:
    answer = rerank(query=ASKED, documents=DOCUMENTS)
    assert [result["index"] for result in answer["results"]][:2] == [1, 4]
    cut = rerank(query=ASKED, documents=DOCUMENTS, top_n=2, return_documents=False)
    assert [result["index"] for result in cut["results"]] == [1, 4]
    assert all(set(result) == {"index", "relevance_score"} for result in cut["results"])
    assert len(rerank(query=ASKED, documents=DOCUMENTS, top_n=99)["results"]) == len(DOCUMENTS)


def test_without_normalisation_scores_are_sums(rerank: Post, oracle: Oracle) -> None:
    (result,) = rerank(query=ASKED, documents=["a"], normalized=False)["results"]
    expected = maxsim(oracle.ids(QUERY + ASKED), oracle.ids(PASSAGE + "a"))
    assert result["relevance_score"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("task", "prefix"), [("retrieval", PASSAGE), ("code", PASSAGE), ("text-matching", QUERY)]
)
def test_like_is_compared_with_like_under_one_prefix(
    rerank: Post, oracle: Oracle, task: str, prefix: str
) -> None:
    results = rerank(query=ASKED, documents=DOCUMENTS[:1], task=task)["results"]
    expected = scores_of(oracle, ASKED, DOCUMENTS[:1], prefix)
    assert [result["relevance_score"] for result in results] == close(expected)


def test_texts_images_and_tokens_are_ranked_together(
    rerank: Post, live: Live, oracle: Oracle, golden: Golden
) -> None:
    documents = [
        picture(golden.images[0]),
        {"text": ASKED},
        oracle.ids("something else"),
        picture(golden.images[3]),
    ]
    answer = rerank(query=ASKED, documents=documents)
    by_index = {result["index"]: result for result in answer["results"]}
    assert sorted(by_index) == [0, 1, 2, 3]
    assert answer["results"][0]["index"] == 1
    got = [by_index[index]["relevance_score"] for index in (1, 2)]
    assert got == close(scores_of(oracle, ASKED, [ASKED, "something else"]))
    for index, number in ((0, 0), (3, 3)):
        ids = golden.arrays[f"retrieval/image_{number}/ids"].tolist()
        query = oracle.ids(QUERY + ASKED)
        expected = maxsim(query, ids) / len(query)
        assert by_index[index]["relevance_score"] == pytest.approx(expected, abs=2e-6)
        # An image's bytes are not sent back.
        assert "document" not in by_index[index]
    assert answer["usage"]["image_tokens"] == sum(
        len(golden.arrays[f"retrieval/image_{number}/ids"]) for number in (0, 3)
    )


def test_an_image_may_be_the_query(rerank: Post, golden: Golden) -> None:
    documents = ["a text", picture(golden.images[0])]
    answer = rerank(query=picture(golden.images[0]), documents=documents)
    assert answer["results"][0]["index"] == 1
    assert answer["results"][0]["relevance_score"] == pytest.approx(1, abs=1e-5)


def test_coheres_path_gives_the_same(live: Live) -> None:
    body = {"model": MODEL, "query": ASKED, "documents": DOCUMENTS, "max_tokens_per_doc": 4096}
    headers = {"X-Request-Id": "same"}
    first, second = (
        live.client.post(path, json=body, headers=headers) for path in ("/v1/rerank", "/v2/rerank")
    )
    assert first.status_code == second.status_code == 200
    assert first.content == second.content


NAMES = [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]


@pytest.mark.parametrize("names", NAMES, ids="-".join)
def test_one_query_is_scored_with_each_document_in_order(
    score: Post, oracle: Oracle, names: tuple[str, str]
) -> None:
    answer = score(**{names[0]: ASKED, names[1]: DOCUMENTS})
    assert [result["score"] for result in answer["data"]] == close(
        scores_of(oracle, ASKED, DOCUMENTS)
    )
    assert [result["index"] for result in answer["data"]] == [0, 1, 2, 3, 4]
    assert {result["object"] for result in answer["data"]} == {"score"}
    assert (answer["model"], answer["object"]) == (MODEL, "list")
    assert 0 <= time.time() - answer["created"] < 600


def test_as_many_queries_as_documents_are_scored_in_pairs(score: Post, oracle: Oracle) -> None:
    queries = ["a", ASKED, "海滩"]
    answer = score(queries=queries, documents=DOCUMENTS[:3])
    expected = [
        scores_of(oracle, query, [document])[0]
        for query, document in zip(queries, DOCUMENTS[:3], strict=True)
    ]
    assert [result["score"] for result in answer["data"]] == close(expected)


def test_numbers_of_queries_and_documents_that_do_not_pair_are_refused(score: Post) -> None:
    refusal = score(422, queries=["a", "b"], documents=DOCUMENTS)
    assert [error["field"] for error in refusal["errors"]] == ["queries"]
    assert "2 queries and 5 documents" in refusal["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": None, "documents": ["a"]}, "query"),
        ({"query": "a", "documents": []}, "documents"),
        ({"query": "a", "documents": "a"}, "documents"),
        ({"query": ["a"], "documents": ["a"]}, "query.0"),
        ({"query": "a", "documents": ["a"], "top_n": 0}, "top_n"),
        ({"query": "a", "documents": ["a"], "task": "retrieval.query"}, "task"),
        ({"query": "a", "documents": [{"pdf": "QUJD"}]}, "documents"),
        ({"query": "a", "documents": ["a", {"image": "QUJD"}]}, "documents.1"),
        ({"query": {"image": "QUJD"}, "documents": ["a"]}, "query"),
        ({"query": "a", "documents": ["a" * 60_000], "truncate": False}, "documents.0"),
    ],
)
def test_what_is_wrong_with_a_rerank_is_named(
    rerank: Post, body: dict[str, Any], field: str
) -> None:
    refusal = rerank(422, **body)
    assert refusal["errors"][0]["field"] == field


def test_long_documents_are_cut_unless_told_otherwise(rerank: Post) -> None:
    answer = rerank(query="a", documents=["word " * 20_000])
    assert answer["usage"]["total_tokens"] < 8192 + 20


def test_another_model_is_refused(rerank: Post, score: Post) -> None:
    for refusal in (
        rerank(400, model="jina-reranker-m0", query="a", documents=["b"]),
        score(400, model="jina-reranker-m0", text_1="a", text_2="b"),
    ):
        assert refusal["code"] == "INPUT_MODEL_NOT_FOUND"
