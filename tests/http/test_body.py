"""Bodies near what the routes take, by the hundred: never an error of the server's own."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.hostile.case import EMBEDDINGS, RERANK, SCORE
from tests.http.live import Live

bounded = settings(
    max_examples=120,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

WORDS = [
    "jina-embeddings-v4",
    "text-matching",
    "retrieval.query",
    "retrieval",
    "code",
    "float",
    "base64",
    "ubinary",
    "int8",
    "AAAA",
    "data:image/png;base64,iVBORw0KGgo=",
    "http://127.0.0.1/",
    "<|image_pad|>",
]
KINDS = ["text", "image", "image_url", "url", "bytes", "pdf", "content"]
FIELDS = [
    "input",
    "task",
    "dimensions",
    "embedding_type",
    "encoding_format",
    "late_chunking",
    "truncate",
    "return_multivector",
    "return_tokenized_input",
    "normalized",
    "query",
    "documents",
    "top_n",
    "return_documents",
    "text_1",
    "text_2",
    "queries",
    "items",
]

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-2, 70)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(WORDS)
    | st.text(max_size=20)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KINDS), inner, min_size=1, max_size=2)
    ),
    max_leaves=8,
)
texts = st.text(max_size=20) | st.lists(st.text(max_size=20), min_size=1, max_size=3)
bodies = st.fixed_dictionaries(
    {"model": st.just("jina-embeddings-v4")},
    optional={
        **dict.fromkeys(FIELDS, values),
        **dict.fromkeys(["input", "query", "documents", "text_1", "text_2"], texts | values),
    },
)


def check(live: Live, path: str, content: bytes) -> int:
    response = live.client.post(path, content=content)
    assert response.status_code in (200, 400, 422), response.text
    if response.status_code != 200:
        error = response.json()
        assert error["detail"] == error["error"]["message"]
        assert error["request_id"] == response.headers["x-request-id"]
    return response.status_code


@pytest.mark.parametrize("path", [EMBEDDINGS, RERANK, SCORE])
def test_no_body_near_the_schema_is_the_servers_own_fault(live: Live, path: str) -> None:
    seen = set()

    @bounded
    @given(body=bodies)
    def send(body: dict[str, object]) -> None:
        seen.add(check(live, path, json.dumps(body).encode()))

    send()
    assert 422 in seen


def test_no_damaged_body_is_the_servers_own_fault(live: Live) -> None:
    sound = json.dumps(
        {
            "model": "jina-embeddings-v4",
            "input": ["a\u00e9\U0001f600", {"text": "b"}],
            "dimensions": 8,
        }
    ).encode()
    damage = st.tuples(st.integers(0, len(sound) - 1), st.integers(0, 3), st.binary(max_size=3))
    seen = set()

    @bounded
    @given(changes=st.lists(damage, min_size=1, max_size=3))
    def send(changes: list[tuple[int, int, bytes]]) -> None:
        body = bytearray(sound)
        for at, num_removed, added in changes:
            body[at : at + num_removed] = added
        seen.add(check(live, EMBEDDINGS, bytes(body)))

    send()
    assert 422 in seen
