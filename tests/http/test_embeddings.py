"""`POST /v1/embeddings`: every field and encoding of the contract, over HTTP, against formulas."""

import base64
from typing import Any

import numpy as np
import pytest

from tests.http.live import MODEL, Embed
from tests.http.oracle import PASSAGE, QUERY, Oracle, close, mean, multi, single

TEXTS = ["a text", "", "海滩上美丽的日落", "  spaces  "]


def vectors(answer: Any) -> list[Any]:
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    return [item["embedding"] for item in answer["data"]]


def test_an_answer_has_the_shape_of_the_contract(embed: Embed, oracle: Oracle) -> None:
    answer = embed(input=TEXTS)
    num_tokens = sum(len(oracle.ids(QUERY + text)) for text in TEXTS)
    assert list(answer) == ["model", "object", "usage", "data"]
    assert (answer["model"], answer["object"]) == (MODEL, "list")
    assert answer["usage"] == {"total_tokens": num_tokens, "prompt_tokens": num_tokens}
    assert {item["object"] for item in answer["data"]} == {"embedding"}
    for got, text in zip(vectors(answer), TEXTS, strict=True):
        assert close(got, single(oracle.ids(QUERY + text)))


@pytest.mark.parametrize(
    "one", ["a text", {"text": "a text"}, ["a text"], [{"text": "a text"}]], ids=repr
)
def test_one_text_is_spelled_in_four_ways(embed: Embed, oracle: Oracle, one: object) -> None:
    (vector,) = vectors(embed(input=one))
    assert close(vector, single(oracle.ids(QUERY + "a text")))


@pytest.mark.parametrize("empty", [[""], "", [{"text": ""}]], ids=repr)
def test_an_empty_text_is_valid(embed: Embed, oracle: Oracle, empty: object) -> None:
    (vector,) = vectors(embed(input=empty))
    assert close(vector, single(oracle.ids(QUERY)))


def test_null_is_absent_and_unknown_keys_are_ignored(embed: Embed) -> None:
    plain = embed(input=TEXTS)
    nulls = dict.fromkeys(
        [
            "task",
            "dimensions",
            "embedding_type",
            "encoding_format",
            "encoding_type",
            "late_chunking",
            "truncate",
            "return_multivector",
            "return_tokenized_input",
            "normalized",
        ]
    )
    assert embed(input=TEXTS, **nulls) == plain
    assert embed(input=TEXTS, user="u", input_type="query", priority={"a": [1]}) == plain
    assert embed(input=TEXTS, late_chunking=False, truncate=False, normalized=True) == plain


@pytest.mark.parametrize(
    ("task", "prefix"),
    [
        ("text-matching", QUERY),
        ("retrieval.query", QUERY),
        ("retrieval.passage", PASSAGE),
        ("code.query", QUERY),
        ("code.passage", PASSAGE),
    ],
)
def test_a_task_has_its_prefix_in_the_field_or_in_the_models_name(
    embed: Embed, oracle: Oracle, task: str, prefix: str
) -> None:
    answer = embed(input=TEXTS, task=task)
    for got, text in zip(vectors(answer), TEXTS, strict=True):
        assert close(got, single(oracle.ids(prefix + text)))
    named = embed(input=TEXTS, model=f"{MODEL}:{task}")
    assert vectors(named) == vectors(answer)
    assert named["model"] == f"{MODEL}:{task}"
    assert vectors(embed(input=TEXTS, model=f"{MODEL}:code.passage", task=task)) == vectors(answer)


@pytest.mark.parametrize("dim", [1, 7, 16, 63, 64])
def test_any_dimension_is_cut_and_scaled_again(embed: Embed, oracle: Oracle, dim: int) -> None:
    for got, text in zip(vectors(embed(input=TEXTS, dimensions=dim)), TEXTS, strict=True):
        assert close(got, single(oracle.ids(QUERY + text), dim))


def test_without_normalisation_the_mean_is_returned(embed: Embed, oracle: Oracle) -> None:
    for dim in (64, 16):
        answer = embed(input=TEXTS, normalized=False, dimensions=dim)
        for got, text in zip(vectors(answer), TEXTS, strict=True):
            assert close(got, mean(oracle.ids(QUERY + text))[:dim])


def _check(name: str, value: Any, floats: Any, scale: float | None = None) -> None:
    """`value` says what `floats`, the same vector as JSON numbers, does."""
    exact = np.asarray(floats, dtype=np.float32)
    match name:
        case "float":
            assert value == floats
        case "base64":
            assert np.frombuffer(base64.b64decode(value), "<f4").tobytes() == exact.tobytes()
        case "ubinary":
            assert value == np.packbits(exact > 0).tolist()
        case "binary":
            assert value == (np.packbits(exact > 0).astype(int) - 128).tolist()
        case _:
            assert scale == pytest.approx(np.abs(exact).max() / 127, rel=1e-6)
            assert all(isinstance(number, int) for number in value)
            assert np.abs(np.asarray(value) * scale - exact).max() <= scale * 0.5001


TYPES = ["float", "base64", "binary", "ubinary", "int8"]


@pytest.mark.parametrize("field", ["embedding_type", "encoding_format", "encoding_type"])
@pytest.mark.parametrize("name", TYPES)
def test_a_vector_in_each_encoding_under_each_of_its_names(
    embed: Embed, field: str, name: str
) -> None:
    floats = vectors(embed(input=TEXTS, dimensions=12))
    answer = embed(input=TEXTS, dimensions=12, **{field: name})
    for item, vector in zip(answer["data"], floats, strict=True):
        _check(name, item["embedding"], vector, item.get("scale"))
        assert ("scale" in item) == (name == "int8")


def test_a_list_of_encodings_is_an_object_keyed_by_them(embed: Embed) -> None:
    floats = vectors(embed(input=TEXTS))
    answer = embed(input=TEXTS, embedding_type=TYPES)
    for item, vector in zip(answer["data"], floats, strict=True):
        assert list(item["embedding"]) == TYPES
        for name, value in item["embedding"].items():
            _check(name, value, vector, item["scale"])
    assert list(vectors(embed(input="a", embedding_type=["float"]))[0]) == ["float"]


@pytest.mark.parametrize("name", TYPES)
def test_multi_vectors_in_each_encoding(embed: Embed, oracle: Oracle, name: str) -> None:
    plain = embed(input=TEXTS, return_multivector=True)
    answer = embed(input=TEXTS, return_multivector=True, embedding_type=name)
    for item, floats, text in zip(answer["data"], plain["data"], TEXTS, strict=True):
        assert close(floats["embeddings"], multi(oracle.ids(QUERY + text)))
        assert item["object"] == "embeddings"
        assert len(item["embeddings"]) == len(floats["embeddings"])
        scales = item.get("scales", [None] * len(item["embeddings"]))
        for value, vector, scale in zip(
            item["embeddings"], floats["embeddings"], scales, strict=True
        ):
            _check(name, value, vector, scale)
    assert [item["index"] for item in answer["data"]] == [0, 1, 2, 3]


def test_multi_vectors_in_a_list_of_encodings(embed: Embed) -> None:
    floats = embed(input="a text", return_multivector=True)["data"][0]["embeddings"]
    (item,) = embed(input="a text", return_multivector=True, embedding_type=TYPES)["data"]
    assert list(item["embeddings"]) == TYPES
    for name, values in item["embeddings"].items():
        for value, vector, scale in zip(values, floats, item["scales"], strict=True):
            _check(name, value, vector, scale)


def test_multi_vectors_that_are_not_scaled(embed: Embed, oracle: Oracle) -> None:
    (item,) = embed(input="a text", return_multivector=True, normalized=False)["data"]
    lengths = np.linalg.norm(item["embeddings"], axis=1)
    assert np.abs(lengths - 1).max() > 0.1
    unit_rows = np.asarray(item["embeddings"]) / lengths[:, None]
    assert close(unit_rows, multi(oracle.ids(QUERY + "a text")))


def test_the_tokens_are_returned_beside_their_vectors(embed: Embed, oracle: Oracle) -> None:
    answer = embed(
        input=TEXTS, task="code.passage", return_multivector=True, return_tokenized_input=True
    )
    for item, text in zip(answer["data"], TEXTS, strict=True):
        ids = oracle.ids(PASSAGE + text)
        assert item["tokenized_input"] == oracle.spelled(ids)
        assert len(item["embeddings"]) == len(ids)


def test_token_ids_are_the_text_they_stand_for(embed: Embed, oracle: Oracle) -> None:
    ids = [oracle.ids(text) for text in TEXTS if text]
    assert vectors(embed(input=ids)) == vectors(embed(input=[text for text in TEXTS if text]))
    assert vectors(embed(input=ids[0])) == vectors(embed(input=TEXTS[0]))
    mixed = embed(input=[ids[1], "a text", ids[0]])
    assert vectors(mixed) == vectors(embed(input=[TEXTS[2], "a text", TEXTS[0]]))


def test_special_tokens_in_text_are_plain_text(embed: Embed) -> None:
    answer = embed(
        input=["<|vision_start|><|image_pad|><|vision_end|>"],
        return_multivector=True,
        return_tokenized_input=True,
    )
    assert "image_tokens" not in answer["usage"]
    (item,) = answer["data"]
    assert not {"<|vision_start|>", "<|image_pad|>"} & set(item["tokenized_input"])
    assert "".join(item["tokenized_input"]) == QUERY + "<|vision_start|><|image_pad|><|vision_end|>"


def test_many_texts_come_back_in_order(embed: Embed, oracle: Oracle) -> None:
    texts = [f"text {number}" * (number % 5 + 1) for number in range(600)]
    for got, text in zip(vectors(embed(input=texts)), texts, strict=True):
        assert close(got, single(oracle.ids(QUERY + text)))
