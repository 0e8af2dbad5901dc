"""The published schema of requests and errors, held to what is really taken and sent."""

import json
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.http.errors import HttpError, body_of, invalid
from serving.http.wire.answers import ErrorAnswer
from serving.http.wire.bodies import EmbeddingsBody, RerankBody, ScoreBody
from serving.http.wire.parse_embeddings import parse_embeddings
from tests.http.wire.bodies import LIMITS, MODEL, examples
from tests.http.wire.test_items import REFUSED, SPELLINGS

PUBLIC = json.loads((Path(__file__).parent / "public_types.json").read_text())
PUBLIC_REQUEST = {"$ref": "#/components/schemas/EmbeddingsV4Request", **PUBLIC}

OF_CONTENT = {
    "base64_invalid",
    "conflict",
    "data_uri_invalid",
    "empty",
    "text_too_long",
    "too_large",
    "too_long",
    "too_short",
    "url_too_long",
}
"""Kinds of error that types cannot say."""

OF_TYPE = {"missing", "input_type", "string_type", "token_id", "too_short", "content_type"}
"""Kinds of error that types can say; a client's generated code then never runs into them."""


def schema_of(body):
    return jsonschema_rs.validator_for(body.model_json_schema())


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_in_the_schema(name):
    value = SPELLINGS[name][0]
    schema = schema_of(EmbeddingsBody)
    schema.validate({"model": MODEL, "input": value})
    schema.validate({"model": MODEL, "input": [value]})


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, (_, errors) in REFUSED.items()
        if {kind for _, kind in errors} <= OF_TYPE or name == "an unknown object"
    ],
)
def test_what_has_the_wrong_type_is_not_in_the_schema(name):
    assert not schema_of(EmbeddingsBody).is_valid({"model": MODEL, "input": REFUSED[name][0]})


@pytest.mark.parametrize("body", [EmbeddingsBody, RerankBody, ScoreBody])
def test_every_field_is_described_and_null_is_in_the_schema_where_it_is_taken(body):
    schema = body.model_json_schema()
    optional = set(schema["properties"]) - set(schema["required"])
    assert optional
    required = {"model": MODEL, "input": "a", "query": "q", "documents": ["d"]}
    jsonschema_rs.validator_for(schema).validate({**required, **dict.fromkeys(optional)})
    assert all(field["description"] for field in schema["properties"].values())


@pytest.mark.parametrize(
    ("body", "required"),
    [
        (EmbeddingsBody, {"model", "input"}),
        (RerankBody, {"model", "query", "documents"}),
        (ScoreBody, {"model"}),
    ],
)
def test_required_fields_are_required(body, required):
    assert set(body.model_json_schema()["required"]) == required


strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
documents = strings | st.fixed_dictionaries({"text": strings})
images = st.fixed_dictionaries({"image": strings})
formats = st.sampled_from(["float", "base64", "binary", "ubinary"])
flags = st.none() | st.booleans()
tasks = ["text-matching", "retrieval.query", "retrieval.passage", "code.query", "code.passage"]
public_requests = st.fixed_dictionaries(
    {
        "model": st.just(MODEL),
        "input": documents
        | images
        | st.fixed_dictionaries({"pdf": strings})
        | st.lists(documents | images, max_size=8),
    },
    optional={
        "task": st.none() | st.sampled_from(tasks),
        "dimensions": st.none() | st.integers(1, 2048),
        "embedding_type": st.none() | formats | st.lists(formats, min_size=1),
        "late_chunking": flags,
        "truncate": flags,
        "return_multivector": flags,
        "return_tokenized_input": flags,
    },
)


@examples
@given(document=public_requests)
def test_what_the_public_types_allow_is_refused_for_its_content_only(document):
    jsonschema_rs.validator_for(PUBLIC_REQUEST).validate(document)
    schema_of(EmbeddingsBody).validate({**document, "input": document["input"] or ["a"]})
    try:
        call = parse_embeddings(json.dumps(document).encode(), LIMITS)
    except HttpError as error:
        kinds = {item.kind for item in error.field_errors}
    else:
        kinds = set()
        assert call.model == MODEL
    assert kinds <= OF_CONTENT


@pytest.mark.parametrize(
    "error",
    [
        invalid("input.3.image", "It is empty.", "empty"),
        HttpError(429, "RATE_TOKEN_LIMIT_EXCEEDED", "Slow down.", retry_after_s=3),
        HttpError(500, "INTERNAL_ERROR", "Sorry."),
    ],
)
def test_errors_are_what_both_schemas_declare(error):
    document = json.loads(body_of(error, "request-1"))
    jsonschema_rs.validator_for(ErrorAnswer.model_json_schema()).validate(document)
    public = "HTTPValidationError" if error.status == 422 else "ErrorResponse"
    public_schema = {"$ref": f"#/components/schemas/{public}", **PUBLIC}
    jsonschema_rs.validator_for(public_schema).validate(document)
