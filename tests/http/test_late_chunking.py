"""`late_chunking`: all inputs are one sequence, and each is pooled over its own span."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import ServerSettings
from tests.http.live import Live, live_server
from tests.http.oracle import PASSAGE, QUERY, Oracle, close, mean, multi, single

MODEL = "jina-embeddings-v4"
CHUNKS = ["The first chunk.", " The second one ", "海滩上美丽的日落", "last"]
MAX_TOKENS = 64
Embed = Callable[..., Any]


@pytest.fixture(scope="module")
def small(merged_float32: Path) -> Iterator[Live]:
    """A server whose texts have few tokens."""
    with live_server(merged_float32, ServerSettings(port=0, max_text_tokens=MAX_TOKENS)) as live:
        yield live


@pytest.fixture
def embed(small: Live) -> Embed:
    def post(status: int = 200, **body: Any) -> Any:
        body = {"model": MODEL, "late_chunking": True, **body}
        answer = small.client.post("/v1/embeddings", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    return post


def spans(oracle: Oracle, prefix: str, chunks: list[str]) -> list[list[int]]:
    """Each chunk's own tokens; the prefix belongs to the first."""
    return [oracle.ids(prefix + chunks[0]), *(oracle.ids(chunk) for chunk in chunks[1:])]


@pytest.mark.parametrize(
    ("task", "prefix"), [("retrieval.passage", PASSAGE), ("text-matching", QUERY), (None, QUERY)]
)
def test_each_chunk_is_pooled_over_its_own_tokens(
    embed: Embed, oracle: Oracle, task: str | None, prefix: str
) -> None:
    answer = embed(input=CHUNKS, task=task)
    expected = spans(oracle, prefix, CHUNKS)
    assert [item["index"] for item in answer["data"]] == [0, 1, 2, 3]
    for item, ids in zip(answer["data"], expected, strict=True):
        assert close(item["embedding"], single(ids))
    # The prefix stands once.
    assert answer["usage"]["total_tokens"] == sum(map(len, expected))


def test_the_first_chunk_is_the_first_text_alone(embed: Embed) -> None:
    alone = embed(input=CHUNKS[:1], late_chunking=False)
    together = embed(input=CHUNKS)
    assert together["data"][0] == alone["data"][0]
    assert embed(input=CHUNKS[:1]) == alone
    assert embed(input=CHUNKS[0]) == alone


def test_a_later_chunk_is_not_the_text_alone(embed: Embed) -> None:
    alone = embed(input=CHUNKS[1], late_chunking=False)["data"][0]["embedding"]
    assert embed(input=CHUNKS)["data"][1]["embedding"] != pytest.approx(alone, abs=1e-3)


def test_chunks_take_dimensions_and_encodings(embed: Embed, oracle: Oracle) -> None:
    answer = embed(input=CHUNKS, dimensions=16, embedding_type=["float", "ubinary"])
    for item, ids in zip(answer["data"], spans(oracle, QUERY, CHUNKS), strict=True):
        assert close(item["embedding"]["float"], single(ids, 16))
        assert len(item["embedding"]["ubinary"]) == 2
    raw = embed(input=CHUNKS, normalized=False)
    for item, ids in zip(raw["data"], spans(oracle, QUERY, CHUNKS), strict=True):
        assert close(item["embedding"], mean(ids))


def test_chunks_have_multi_vectors_and_tokens(embed: Embed, oracle: Oracle) -> None:
    answer = embed(input=CHUNKS, return_multivector=True, return_tokenized_input=True)
    for item, ids in zip(answer["data"], spans(oracle, QUERY, CHUNKS), strict=True):
        assert item["object"] == "embeddings"
        assert close(item["embeddings"], multi(ids))
        assert item["tokenized_input"] == oracle.spelled(ids)


def test_chunks_that_are_too_long_together_are_refused(embed: Embed) -> None:
    refusal = embed(422, input=["many words of text"] * 8)
    assert refusal["detail"].startswith("input: ")
    assert str(MAX_TOKENS) in refusal["detail"]


def test_with_truncate_the_sequence_is_cut(embed: Embed, oracle: Oracle) -> None:
    chunks = ["many words of text", "and then some more, " * 8]
    first, second = spans(oracle, QUERY, chunks)
    assert len(first) + len(second) > MAX_TOKENS
    answer = embed(input=chunks, truncate=True)
    assert answer["usage"]["total_tokens"] == MAX_TOKENS
    assert close(answer["data"][0]["embedding"], single(first))
    assert close(answer["data"][1]["embedding"], single(second[: MAX_TOKENS - len(first)]))


def test_a_chunk_of_which_nothing_is_left_is_refused_by_name(embed: Embed) -> None:
    refusal = embed(422, input=["and then some more, " * 8, "gone"], truncate=True)
    assert [error["field"] for error in refusal["errors"]] == ["input.1"]


def test_an_empty_chunk_is_refused_unless_it_is_the_first(embed: Embed, oracle: Oracle) -> None:
    refusal = embed(422, input=["a", "", "b"])
    assert [error["field"] for error in refusal["errors"]] == ["input.1"]
    first, _ = embed(input=["", "b"])["data"]
    assert close(first["embedding"], single(oracle.ids(QUERY)))


def test_token_ids_stand_for_a_chunk_as_for_a_text(embed: Embed, oracle: Oracle) -> None:
    ids = [oracle.ids(chunk) for chunk in CHUNKS]
    assert embed(input=[ids[0], CHUNKS[1], *ids[2:]]) == embed(input=CHUNKS)


def test_only_texts_are_chunks(embed: Embed) -> None:
    for wrong in (["a", {"image": "QUJD"}], {"pdf": "QUJD"}):
        refusal = embed(422, input=wrong)
        assert "late_chunking" in json.dumps(refusal["errors"])


def test_a_text_that_is_too_long_is_refused_or_cut(embed: Embed, oracle: Oracle) -> None:
    long = "many words of text " * 20
    ids = oracle.ids(QUERY + long)
    refusal = embed(422, input=["a", long], late_chunking=False)
    assert [error["field"] for error in refusal["errors"]] == ["input.1"]
    assert str(len(ids)) in refusal["detail"]
    assert str(MAX_TOKENS) in refusal["detail"]
    answer = embed(input=["a", long], truncate=True, late_chunking=False)
    assert close(answer["data"][1]["embedding"], single(ids[:MAX_TOKENS]))
    assert answer["usage"]["total_tokens"] == len(oracle.ids(QUERY + "a")) + MAX_TOKENS
