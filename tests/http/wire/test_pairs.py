"""Rerank and score: bodies to calls, scores to answers."""

import json

import jsonschema_rs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pooling import NonFiniteError
from serving.http.wire.answer_parts import Usage
from serving.http.wire.answers import RerankAnswer, ScoreAnswer
from serving.http.wire.calls import RerankCall, ScoreCall
from serving.http.wire.items import ImageItem, ImageUrlItem, TextItem, TokensItem
from serving.http.wire.parse_pairs import parse_rerank, parse_score
from serving.http.wire.rankings import rerank_answer, score_answer
from tests.http.wire.bodies import MODEL, body_of, examples, refusal, rerank, score
from tests.http.wire.vectors import USAGE

URL = "https://example.com/a.png"


def rerank_refused(**fields):
    body = body_of(**{"query": "q", "documents": ["a", "b"], **fields})
    return [(item.field, item.kind) for item in refusal(parse_rerank, body).field_errors]


def score_refused(**fields):
    return [
        (item.field, item.kind) for item in refusal(parse_score, body_of(**fields)).field_errors
    ]


def ranked(call, scores):
    return json.loads(rerank_answer(call, MODEL, torch.tensor(scores), USAGE, "id-1"))


def test_a_rerank_has_the_defaults_of_rerankers():
    assert rerank() == RerankCall(
        model=MODEL,
        query=TextItem("q"),
        documents=(TextItem("a"), TextItem("b")),
        top_n=None,
        return_documents=True,
        task=None,
        truncate=True,
        normalized=True,
    )


@pytest.mark.parametrize(
    "option", ["top_n", "return_documents", "task", "truncate", "normalized", "max_tokens_per_doc"]
)
def test_null_is_absent_in_a_rerank(option):
    assert rerank(**{option: None}) == rerank()


def test_a_rerank_takes_texts_and_images_in_every_spelling():
    call = rerank(
        query={"image": URL},
        documents=["a", {"text": "b"}, {"image": "QUJD"}, {"url": URL}, [1, 2]],
        top_n=3,
        return_documents=False,
        task="code",
        truncate=False,
        normalized=False,
    )
    assert call.query == ImageUrlItem(URL)
    assert call.documents == (
        TextItem("a"),
        TextItem("b"),
        ImageItem(b"ABC"),
        ImageUrlItem(URL),
        TokensItem((1, 2)),
    )
    assert (call.top_n, call.return_documents, call.task) == (3, False, "code")
    assert (call.truncate, call.normalized) == (False, False)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"query": None}, [("query", "missing")]),
        ({"query": 5}, [("query", "input_type")]),
        ({"query": ["a"]}, [("query.0", "token_id")]),
        ({"query": {"pdf": URL}}, [("query", "pdf")]),
        ({"documents": None}, [("documents", "missing")]),
        ({"documents": []}, [("documents", "too_short")]),
        ({"documents": ["a"] * 7}, [("documents", "too_long")]),
        ({"documents": "a"}, [("documents", "list_type")]),
        ({"documents": {"text": "a"}}, [("documents", "list_type")]),
        (
            {"documents": [1, 2]},
            [("documents.0", "input_type"), ("documents.1", "input_type")],
        ),
        ({"documents": ["a", {"image": "!"}]}, [("documents.1.image", "base64_invalid")]),
        ({"documents": ["a", {"pdf": URL}]}, [("documents", "pdf")]),
        ({"top_n": 0}, [("top_n", "greater_than_equal")]),
        ({"top_n": "1"}, [("top_n", "int_type")]),
        ({"top_n": True}, [("top_n", "int_type")]),
        ({"return_documents": "yes"}, [("return_documents", "bool_type")]),
        ({"task": 1}, [("task", "string_type")]),
        (
            {"query": 1, "documents": [2], "top_n": 0},
            [
                ("top_n", "greater_than_equal"),
                ("query", "input_type"),
                ("documents.0", "input_type"),
            ],
        ),
    ],
)
def test_a_wrong_rerank_is_refused_by_name(fields, expected):
    assert rerank_refused(**fields) == expected


def test_the_best_document_comes_first_and_equal_ones_in_their_order():
    call = rerank(documents=["a", "b", "c", "d", "e"])
    results = ranked(call, [0.5, 0.25, 0.75, 0.5, -1.0])["results"]
    assert [item["index"] for item in results] == [2, 0, 3, 1, 4]
    assert [item["relevance_score"] for item in results] == [0.75, 0.5, 0.5, 0.25, -1.0]
    assert [item["document"]["text"] for item in results] == ["c", "a", "d", "b", "e"]


@examples
@given(
    scores=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1),
    top_n=st.none() | st.integers(1, 40),
)
def test_a_ranking_is_the_sorted_scores_cut_to_top_n(scores, top_n):
    call = RerankCall(
        MODEL, TextItem("q"), (TextItem("d"),) * len(scores), top_n, False, "code", True, True
    )
    results = ranked(call, scores)["results"]
    expected = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    assert [item["index"] for item in results] == expected[:top_n]
    assert all(set(item) == {"index", "relevance_score"} for item in results)
    read = torch.tensor([item["relevance_score"] for item in results], dtype=torch.float32)
    assert torch.equal(read, torch.tensor(scores)[expected[:top_n]])


def test_images_are_never_sent_back_and_urls_are():
    call = rerank(documents=[{"image": "QUJD"}, {"image": URL}, [1, 2], {"text": "t"}])
    results = ranked(call, [4.0, 3.0, 2.0, 1.0])["results"]
    documents = [item.get("document") for item in results]
    assert documents == [None, {"image": URL}, None, {"text": "t"}]


def test_a_rerank_answer_has_what_clients_of_jina_and_cohere_read():
    document = ranked(rerank(), [0.1, 0.2])
    assert list(document) == ["model", "object", "usage", "results", "id", "meta"]
    assert document["usage"] == {"total_tokens": 12, "prompt_tokens": 12}
    assert (document["id"], document["model"]) == ("id-1", MODEL)
    assert document["meta"]["api_version"]["version"] == "2"
    assert document["results"][0]["relevance_score"] == 0.2
    jsonschema_rs.validator_for(RerankAnswer.model_json_schema()).validate(document)


SIDES = [
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
]


@pytest.mark.parametrize("names", SIDES)
def test_a_score_has_two_sides_under_any_of_their_names(names):
    queries, documents = names
    call = score(**{queries: "q", documents: ["a", {"image": URL}]})
    assert call == ScoreCall(
        model=MODEL,
        queries=(TextItem("q"),),
        documents=(TextItem("a"), ImageUrlItem(URL)),
        names=names,
        task=None,
        truncate=True,
        normalized=True,
    )


@pytest.mark.parametrize(
    ("queries", "documents", "num_queries", "num_documents"),
    [
        ("q", "d", 1, 1),
        (["q"], ["d"], 1, 1),
        ("q", ["a", "b", "c"], 1, 3),
        (["p", "q"], ["a", "b"], 2, 2),
        ({"image": URL}, {"text": "d"}, 1, 1),
        ({"content": [{"type": "text", "text": "q"}]}, "d", 1, 1),
        ([1, 2], [3, 4], 1, 1),
    ],
)
def test_a_score_takes_one_to_one_one_to_many_and_pairs(
    queries, documents, num_queries, num_documents
):
    call = score(text_1=queries, text_2=documents)
    assert (len(call.queries), len(call.documents)) == (num_queries, num_documents)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [("body", "missing")]),
        ({"text_1": "q"}, [("body", "missing")]),
        ({"text_1": "q", "documents": "d"}, [("body", "missing")]),
        ({"text_1": "q", "text_2": "d", "queries": "q"}, [("body", "missing")]),
        ({"text_1": ["p", "q"], "text_2": "d"}, [("text_1", "conflict")]),
        ({"queries": ["p", "q"], "documents": ["a", "b", "c"]}, [("queries", "conflict")]),
        ({"text_1": "q", "text_2": []}, [("text_2", "too_short")]),
        ({"text_1": [], "text_2": ["a"]}, [("text_1", "too_short")]),
        ({"text_1": "q", "text_2": ["a"] * 7}, [("text_2", "too_long")]),
        ({"text_1": 1, "text_2": [{}]}, [("text_1", "input_type"), ("text_2.0", "input_kind")]),
        ({"data_1": {"pdf": URL}, "data_2": "d"}, [("data_1", "pdf")]),
        ({"text_1": "q", "text_2": "d", "task": ["x"]}, [("task", "string_type")]),
    ],
)
def test_a_wrong_score_is_refused_by_name(fields, expected):
    assert score_refused(**fields) == expected


def test_a_score_answer_has_vllms_shape():
    body = score_answer(MODEL, torch.tensor([0.5, 0.1]), Usage(7, 7), "id-2", 1_700_000_000)
    document = json.loads(body)
    assert document == {
        "id": "id-2",
        "object": "list",
        "created": 1_700_000_000,
        "model": MODEL,
        "data": [
            {"index": 0, "object": "score", "score": 0.5},
            {"index": 1, "object": "score", "score": 0.1},
        ],
        "usage": {"total_tokens": 7, "prompt_tokens": 7},
    }
    jsonschema_rs.validator_for(ScoreAnswer.model_json_schema()).validate(document)


def test_a_score_that_is_not_finite_is_never_sent():
    scores = torch.tensor([0.5, float("nan")])
    with pytest.raises(NonFiniteError):
        rerank_answer(rerank(), MODEL, scores, USAGE, "id")
    with pytest.raises(NonFiniteError):
        score_answer(MODEL, scores, USAGE, "id", 0)


def test_many_equal_scores_keep_the_order_of_their_documents():
    documents = tuple(TextItem("d") for _ in range(2000))
    call = RerankCall(MODEL, TextItem("q"), documents, None, False, "code", True, True)
    results = ranked(call, [0.5, 0.25] * 1000)["results"]
    assert [item["index"] for item in results] == [*range(0, 2000, 2), *range(1, 2000, 2)]
