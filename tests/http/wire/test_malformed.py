"""Bodies that are not what JSON is, on every route."""

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.http.errors import HttpError
from serving.http.wire.items import TextItem
from serving.http.wire.parse_embeddings import parse_embeddings
from serving.http.wire.parse_pairs import parse_rerank, parse_score
from tests.http.wire.bodies import LIMITS, examples, refusal

ROUTES = {"embeddings": parse_embeddings, "rerank": parse_rerank, "score": parse_score}
START = b'{"model": "m", "query": "q", "documents": ["d"], "queries": "q", "input": '

NOT_JSON = {
    "nothing": b"",
    "spaces": b"  \n",
    "a word": b"hello",
    "a form": b"model=m&input=a",
    "XML": b"<input>a</input>",
    "a comma at the end": b'{"model": "m", "input": "a",}',
    "single quotes": b"{'model': 'm', 'input': 'a'}",
    "a comment": b'{"model": "m", /* c */ "input": "a"}',
    "two documents": b'{"model": "m", "input": "a"}{}',
    "half a document": START + b'"a',
    "half an escape": START + b'"\\u12"}',
    "a lone high surrogate": START + b'"\\ud800"}',
    "a lone low surrogate": START + b'"\\udc00"}',
    "surrogates in the wrong order": START + b'"\\udc00\\ud800"}',
    "invalid UTF-8": START + b'"\xff\xfe"}',
    "an encoded surrogate": START + b'"\xed\xa0\x80"}',
    "overlong UTF-8": START + b'"\xc0\xaf"}',
    "Latin-1": START + '"é"}'.encode("latin-1"),
    "UTF-16": '{"model": "m", "input": "a"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + START + b'"a"}',
    "NaN": START + b"NaN}",
    "NaN in a field nobody reads": START + b'"a", "x": NaN}',
    "Infinity": START + b"-Infinity}",
    "a number beyond every float": START + b"[1e400]}",
    "an integer of 5000 digits": START + b"[" + b"1" * 5000 + b"]}",
    "a raw newline in a string": START + b'"a\nb"}',
    "a raw NUL in a string": START + b'"a\x00b"}',
    "a hundred thousand brackets": START + b"[" * 100_000,
    "brackets too deep, closed": START + b"[" * 5000 + b"]" * 5000 + b"}",
    "objects too deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_not_json_is_refused_as_such(route, name):
    error = refusal(ROUTES[route], NOT_JSON[name])
    assert [(item.field, item.kind) for item in error.field_errors] == [("body", "json_invalid")]
    assert len(error.detail) < 300


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b'"a"', b"true", b'[{"model": "m"}]'])
def test_a_document_that_is_no_object_is_refused(route, body):
    error = refusal(ROUTES[route], body)
    assert [(item.field, item.kind) for item in error.field_errors] == [("body", "model_type")]


@pytest.mark.parametrize(
    ("route", "missing"),
    [
        ("embeddings", {"model", "input"}),
        ("rerank", {"model", "query", "documents"}),
        ("score", {"model", "body"}),
    ],
)
def test_everything_that_is_missing_is_named(route, missing):
    for body in (b"{}", json.dumps(dict.fromkeys(missing)).encode()):
        fields = {item.field for item in refusal(ROUTES[route], body).field_errors}
        assert fields == missing


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "values", [b"[0" + b",0" * 2**21 + b",0]", b'{"a":0' + b',"a":0' * 2**21 + b"}"]
)
def test_a_body_of_more_values_than_anybody_needs_is_not_parsed(route, values):
    error = refusal(ROUTES[route], START + b'"a", "x": ' + values + b"}")
    assert [(item.field, item.kind) for item in error.field_errors] == [("body", "too_many_values")]


def test_commas_in_a_text_are_no_values():
    text = '\\\\ \\" [{' + "," * (2**21 + 1)
    limits = replace(LIMITS, max_text_chars=len(text), max_request_chars=len(text))
    assert parse_embeddings(START + f'"{text}"}}'.encode(), limits).items == (
        TextItem(json.loads(f'"{text}"')),
    )


def test_of_keys_that_stand_twice_the_last_counts():
    body = b'{"model": "m", "input": "first", "input": "last"}'
    assert parse_embeddings(body, LIMITS).items == (TextItem("last"),)


def test_depth_that_json_allows_is_refused_for_what_it_is():
    body = START + b"[" * 900 + b"]" * 900 + b"}"
    assert [item.kind for item in refusal(parse_embeddings, body).field_errors] == ["token_id"]


def test_depth_in_a_field_nobody_reads_is_ignored():
    body = START + b'"a", "x": ' + b"[" * 900 + b"]" * 900 + b"}"
    assert parse_embeddings(body, LIMITS).items == (TextItem("a"),)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["text", "image", "url", "bytes", "image_url", "pdf", "content", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
FIELDS = ["model", "input", "task", "dimensions", "embedding_type", "encoding_format", "truncate"]
FIELDS += ["query", "documents", "top_n", "text_1", "text_2", "queries", "items", "normalized"]


@pytest.mark.parametrize("route", ROUTES)
@examples
@given(document=st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_any_json_is_a_call_or_a_refusal(route, document):
    with contextlib.suppress(HttpError):
        ROUTES[route](json.dumps(document).encode(), LIMITS)


@pytest.mark.parametrize("route", ROUTES)
@examples
@given(body=st.binary(max_size=50))
def test_any_bytes_are_a_call_or_a_refusal(route, body):
    with pytest.raises(HttpError):
        ROUTES[route](body, LIMITS)
