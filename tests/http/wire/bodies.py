"""Bodies for the tests, and the shortest way to what becomes of them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

from serving.http.errors import HttpError
from serving.http.wire.calls import EmbeddingsCall, RerankCall, ScoreCall
from serving.http.wire.items import Item
from serving.http.wire.limits import BodyLimits
from serving.http.wire.parse_embeddings import parse_embeddings
from serving.http.wire.parse_pairs import parse_rerank, parse_score

LIMITS = BodyLimits(
    max_inputs=6,
    max_image_bytes=1000,
    max_pdf_bytes=2000,
    max_text_chars=500,
    max_token_ids=64,
    max_request_chars=600,
)
MODEL = "jina-embeddings-v4"

examples = settings(max_examples=25, deadline=None)

Parse = Callable[[bytes, BodyLimits], object]


def body_of(**fields: Any) -> bytes:
    return json.dumps({"model": MODEL, **fields}).encode()


def embeddings(**fields: Any) -> EmbeddingsCall:
    return parse_embeddings(body_of(**{"input": "a text", **fields}), LIMITS)


def rerank(**fields: Any) -> RerankCall:
    return parse_rerank(body_of(**{"query": "q", "documents": ["a", "b"], **fields}), LIMITS)


def score(**fields: Any) -> ScoreCall:
    return parse_score(body_of(**fields), LIMITS)


def items(value: Any) -> tuple[Item, ...]:
    return embeddings(input=value).items


def refusal(parse: Parse, body: bytes) -> HttpError:
    with pytest.raises(HttpError) as caught:
        parse(body, LIMITS)
    error = caught.value
    assert (error.status, error.code) == (422, "VALIDATION_ERROR")
    assert 1 <= len(error.field_errors) <= 10
    return error


def refused(**fields: Any) -> list[tuple[str, str]]:
    """Field and kind of everything that is wrong with an embeddings body."""
    error = refusal(parse_embeddings, body_of(**{"input": "a text", **fields}))
    return [(item.field, item.kind) for item in error.field_errors]
