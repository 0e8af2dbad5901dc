"""Every option of an embeddings request."""

from dataclasses import replace

import pytest

from serving.http.wire.calls import EmbeddingsCall, Format
from serving.http.wire.items import TextItem, TokensItem
from serving.http.wire.parse_embeddings import parse_embeddings
from tests.http.wire.bodies import LIMITS, MODEL, body_of, embeddings, refusal, refused, rerank

DEFAULTS = EmbeddingsCall(
    model=MODEL,
    items=(TextItem("a text"),),
    task=None,
    dimensions=None,
    formats=(Format.FLOAT,),
    keyed=False,
    multi=False,
    late_chunking=False,
    truncate=False,
    tokenized=False,
    normalized=True,
)
OPTIONS = (
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
)
FORMAT_FIELDS = ("embedding_type", "encoding_format", "encoding_type")


def test_a_body_with_model_and_input_alone_has_the_defaults_of_the_contract():
    assert embeddings() == DEFAULTS


@pytest.mark.parametrize("option", OPTIONS)
def test_null_is_absent(option):
    assert embeddings(**{option: None}) == DEFAULTS


def test_unknown_keys_are_ignored():
    assert embeddings(user="u", extra_body={"a": [1]}, input_type="query") == DEFAULTS


@pytest.mark.parametrize(
    "task",
    ["text-matching", "retrieval.query", "retrieval.passage", "code.query", "code.passage"],
)
def test_every_task_of_the_contract_is_taken(task):
    assert embeddings(task=task).task == task


@pytest.mark.parametrize("task", ["retrieval", "contracts.v2", "contracts.v2.query", ""])
def test_other_tasks_are_left_to_whoever_knows_what_is_served(task):
    assert embeddings(task=task).task == task


@pytest.mark.parametrize("field", FORMAT_FIELDS)
@pytest.mark.parametrize("name", ["float", "base64", "binary", "ubinary", "int8"])
def test_a_format_is_taken_under_each_of_its_names(field, name):
    call = embeddings(**{field: name})
    assert (call.formats, call.keyed) == ((Format(name),), False)
    listed = embeddings(**{field: [name]})
    assert (listed.formats, listed.keyed) == ((Format(name),), True)


def test_a_list_of_formats_keeps_its_order_and_drops_what_stands_twice():
    call = embeddings(embedding_type=["ubinary", "float", "ubinary"])
    assert (call.formats, call.keyed) == ((Format.UBINARY, Format.FLOAT), True)


@pytest.mark.parametrize("wrong", [[], "uint8", 1, True, {}, [1], ["float", None], [["float"]], ""])
@pytest.mark.parametrize("field", FORMAT_FIELDS)
def test_other_formats_are_refused(field, wrong):
    assert refused(**{field: wrong}) == [(field, "literal_error")]


def test_names_of_the_format_may_be_given_together_when_they_agree():
    call = embeddings(embedding_type="base64", encoding_format="base64", encoding_type=None)
    assert call.formats == (Format.BASE64,)


def test_names_of_the_format_that_differ_are_refused():
    assert refused(embedding_type="float", encoding_format="ubinary") == [
        ("encoding_format", "conflict")
    ]
    assert refused(embedding_type="float", encoding_type=["float"]) == [
        ("encoding_type", "conflict")
    ]


@pytest.mark.parametrize("clients_own", ["base64", "float"])
def test_what_a_client_adds_by_itself_gives_way_to_what_its_user_asked_for(clients_own):
    for asked, formats in (("binary", (Format.BINARY,)), (["float", "ubinary"], None)):
        call = embeddings(embedding_type=asked, encoding_format=clients_own)
        assert call.formats == (formats or (Format.FLOAT, Format.UBINARY))
        assert call.keyed == isinstance(asked, list)
    assert refused(encoding_type="int8", encoding_format=clients_own) == [
        ("encoding_type", "conflict")
    ]


def test_with_truncate_what_is_too_long_is_cut_before_it_is_tokenised():
    ids = list(range(LIMITS.max_token_ids + 9))
    (cut,) = embeddings(input=[ids], truncate=True).items
    assert cut == TokensItem(tuple(ids[:-9]))
    (cut,) = embeddings(input="a" * (LIMITS.max_text_chars + 9), truncate=True).items
    assert cut == TextItem("a" * LIMITS.max_text_chars)
    # What is compared is cut unless the caller says otherwise.
    assert rerank(documents=["b" * (LIMITS.max_text_chars + 9)]).documents == (
        TextItem("b" * LIMITS.max_text_chars),
    )
    for body in ({"input": [ids]}, {"input": ["a" * (LIMITS.max_text_chars + 9)]}):
        assert refused(**body) == [("input.0", "text_too_long")]


@pytest.mark.parametrize("dimensions", [1, 128, 2048, 2**40])
def test_dimensions_are_taken_from_one(dimensions):
    assert embeddings(dimensions=dimensions).dimensions == dimensions


@pytest.mark.parametrize(
    ("option", "wrong", "kind"),
    [
        ("dimensions", 0, "greater_than_equal"),
        ("dimensions", -1, "greater_than_equal"),
        ("dimensions", "128", "int_type"),
        ("dimensions", True, "int_type"),
        ("dimensions", 128.5, "int_type"),
        ("dimensions", 128.0, "int_type"),
        ("dimensions", 10**30, "int_type"),
        ("dimensions", [128], "int_type"),
        ("task", 1, "string_type"),
        ("task", ["text-matching"], "string_type"),
        ("truncate", "true", "bool_type"),
        ("truncate", 1, "bool_type"),
        ("late_chunking", 0, "bool_type"),
        ("return_multivector", {}, "bool_type"),
        ("return_tokenized_input", [], "bool_type"),
        ("normalized", "false", "bool_type"),
        ("model", 5, "string_type"),
        ("model", "", "string_too_short"),
        ("model", ["jina-embeddings-v4"], "string_type"),
    ],
)
def test_nothing_is_converted(option, wrong, kind):
    assert refused(**{option: wrong}) == [(option, kind)]


def test_options_reach_the_call():
    call = embeddings(truncate=True, late_chunking=True, normalized=False, input=["a", "b"])
    assert (call.truncate, call.late_chunking, call.normalized) == (True, True, False)
    call = embeddings(return_multivector=True, return_tokenized_input=True)
    assert (call.multi, call.tokenized) == (True, True)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"dimensions": 64, "return_multivector": True}, "dimensions"),
        ({"return_tokenized_input": True}, "return_tokenized_input"),
        ({"late_chunking": True, "input": ["a", {"image": "QUJD"}]}, "late_chunking"),
        ({"late_chunking": True, "input": {"pdf": "QUJD"}}, "late_chunking"),
    ],
)
def test_options_that_exclude_each_other_are_refused(fields, wrong):
    assert refused(**fields) == [(wrong, "conflict")]


def test_late_chunking_takes_texts_in_every_spelling():
    assert len(embeddings(late_chunking=True, input=["a", {"text": "b"}]).items) == 2


def test_options_that_are_false_exclude_nothing():
    call = embeddings(dimensions=64, return_multivector=False, return_tokenized_input=False)
    assert call.dimensions == 64


def test_wrong_options_and_wrong_inputs_are_named_together():
    wrong = refused(input=["a", 1], task=5, dimensions=0)
    assert wrong == [
        ("task", "string_type"),
        ("dimensions", "greater_than_equal"),
        ("input.1", "input_type"),
    ]


def test_at_most_ten_wrong_fields_are_named():
    many = replace(LIMITS, max_inputs=100)
    body = body_of(input=["a"] + [True] * 50, task=1)
    error = refusal(lambda data, _: parse_embeddings(data, many), body)
    assert [item.field for item in error.field_errors] == [
        "task",
        *(f"input.{index}" for index in range(1, 10)),
    ]


def test_no_message_repeats_a_value():
    secret = "s3cret-value"
    bodies = [
        {"input": {"text": [secret]}},
        {"input": {secret: 1}},
        {"input": {"image": secret + "!"}},
        {"input": {"url": secret}},
        {"input": "a", "task": [secret]},
        {"input": "a", "dimensions": secret},
        {"input": "a", "embedding_type": [secret]},
        {"input": "a", "truncate": secret},
        {"input": [secret, 1]},
        {"input": [[secret]]},
    ]
    for fields in bodies:
        error = refusal(parse_embeddings, body_of(**fields))
        assert secret not in error.detail
        assert secret not in repr(error.field_errors)
        assert error.__cause__ is None
