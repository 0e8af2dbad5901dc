"""Every refusal of the contract, in its one shape; and the server serves on."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from serving import ServerSettings
from serving.engine.fake import FakeEngine
from serving.http.caller import UNLIMITED, Limits
from serving.http.key_file import add_key
from serving.http.wire.answers import ErrorAnswer
from serving.manifest import find_tasks
from tests.http.live import live_server

MODEL = "jina-embeddings-v4"
EMBEDDINGS = "/v1/embeddings"
MAX_BODY_BYTES = 20_000
MAX_TEXT_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Strict:
    """A server with keys and small limits; its engine of "code" is closed, "text-matching" is not served.

    Attributes:
        client: with a key.
        keys: of callers with limits, by what is limited.
    """

    client: httpx.Client
    keys: Mapping[str, str]


@pytest.fixture(scope="module")
def strict(merged_float32: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    key = add_key(path, "alice", UNLIMITED)
    keys = {
        "requests": add_key(path, "bob", Limits(requests_per_minute=2)),
        "tokens": add_key(path, "carol", Limits(tokens_per_minute=30)),
    }
    directories = find_tasks(merged_float32)
    engines = {task: FakeEngine(directories[task]) for task in ("retrieval", "code")}
    asyncio.run(engines["code"].close())
    settings = ServerSettings(
        port=0,
        keys=path,
        max_inputs=4,
        max_text_tokens=MAX_TEXT_TOKENS,
        max_multivector_tokens=40,
        max_body_bytes=MAX_BODY_BYTES,
        max_image_bytes=2_000,
    )
    with live_server(merged_float32, settings, engines) as live:
        live.client.headers["Authorization"] = f"Bearer {key}"
        yield Strict(live.client, keys)


def body_of(**fields: Any) -> bytes:
    return orjson.dumps({"model": f"{MODEL}:retrieval.query", "input": "a", **fields})


def assert_shape(answer: httpx.Response, status: int, code: str) -> Any:
    """The contract's shape, whatever went wrong."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    ErrorAnswer.model_validate_json(answer.content, strict=True)
    assert document["code"] == document["error"]["code"] == code
    assert document["detail"] == document["error"]["message"]
    assert len(document["detail"].split()) >= 3
    assert document["request_id"] == answer.headers["x-request-id"]
    assert ("errors" in document) == (status == 422)
    if status == 422:
        assert document["errors"][0]["field"] == document["error"]["param"]
        assert all(error["input"] is None for error in document["errors"])
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    return document


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Authorization": ""}, "AUTH_MISSING_API_KEY"),
        ({"Authorization": "Bearer pv-unknown"}, "AUTH_INVALID_API_KEY"),
        ({"Authorization": "Token abc"}, "AUTH_INVALID_FORMAT"),
    ],
)
@pytest.mark.parametrize("path", [EMBEDDINGS, "/v1/rerank", "/v1/models", "/docs", "/nowhere"])
def test_without_a_good_key_every_path_is_closed(
    strict: Strict, path: str, headers: dict[str, str], code: str
) -> None:
    answer = strict.client.post(path, content=body_of(), headers=headers)
    document = assert_shape(answer, 401, code)
    # A browser at /docs is asked to ask for the key, as a password.
    assert answer.headers["www-authenticate"].split()[0] == (
        "Basic" if path == "/docs" else "Bearer"
    )
    assert document["error"]["type"] == "authentication_error"


def test_health_needs_no_key(strict: Strict) -> None:
    for path in ("/health/live", "/health/ready", "/health", "/ping"):
        answer = strict.client.get(path, headers={"Authorization": ""})
        assert answer.status_code == (200 if path == "/health/live" else 503)


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "unknown model": ({"model": "gpt-4"}, 400, "INPUT_MODEL_NOT_FOUND"),
    "unknown task in the model": ({"model": f"{MODEL}:x"}, 400, "INPUT_MODEL_NOT_FOUND"),
    "engine away": ({"task": "code.query"}, 503, "SERVICE_UNAVAILABLE"),
    **{
        name: (fields, 422, "VALIDATION_ERROR")
        for name, fields in {
            "no input": {"input": None},
            "no model": {"model": None},
            "empty list": {"input": []},
            "too many inputs": {"input": ["a"] * 5},
            "number": {"input": 5},
            "null in a list": {"input": ["a", None]},
            "unknown task": {"task": "retrieval"},
            "too many dimensions": {"dimensions": 65},
            "no dimensions": {"dimensions": 0},
            "dimensions of multi-vectors": {"dimensions": 8, "return_multivector": True},
            "tokens of single vectors": {"return_tokenized_input": True},
            "unknown encoding": {"embedding_type": "float16"},
            "encodings that differ": {"encoding_format": "float", "encoding_type": "base64"},
            "no boolean": {"truncate": "yes"},
            "too many tokens": {"input": "words " * 30},
            "too many multi-vectors": {"input": ["words " * 6] * 3, "return_multivector": True},
            "unknown token id": {"input": [5000]},
            "negative token id": {"input": [[-1]]},
            "no image": {"input": {"image": "aGVsbG8="}},
            "no base64": {"input": {"image": "?"}},
            "image too large": {"input": {"image": "A" * 4000}},
            "private address": {"input": {"image": "http://127.0.0.1/a.png"}},
            "file": {"input": {"image": "file:///etc/hostname"}},
            "no PDF": {"input": {"pdf": "aGVsbG8="}},
            "PDF among others": {"input": [{"pdf": "aGVsbG8="}, "a"]},
            "two kinds at once": {"input": {"text": "a", "image": "QUJD"}},
        }.items()
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_body_that_is_refused_says_so_in_the_contracts_shape(strict: Strict, name: str) -> None:
    fields, status, code = REFUSED[name]
    answer = strict.client.post(EMBEDDINGS, content=body_of(**fields), headers=JSON)
    assert_shape(answer, status, code)


def test_a_default_task_that_is_not_served_says_what_to_name(strict: Strict) -> None:
    answer = strict.client.post(EMBEDDINGS, content=body_of(model=MODEL))
    document = assert_shape(answer, 422, "VALIDATION_ERROR")
    assert [error["field"] for error in document["errors"]] == ["task"]
    for name in ("text-matching", "retrieval.query", "retrieval.passage", "MODEL:TASK"):
        assert name in document["detail"]
    named = strict.client.post(EMBEDDINGS, content=body_of(model=MODEL, task="retrieval.query"))
    assert named.status_code == 200


def test_several_wrong_fields_are_all_named(strict: Strict) -> None:
    answer = strict.client.post(
        EMBEDDINGS, content=body_of(input=["a", 1, {}], dimensions="8", truncate=2)
    )
    document = assert_shape(answer, 422, "VALIDATION_ERROR")
    fields = {error["field"] for error in document["errors"]}
    assert fields == {"dimensions", "truncate", "input.1", "input.2"}


def test_bodies_that_are_not_json(strict: Strict) -> None:
    for content in (b"", b"{", b"[]", b'"a"', b"\xff\xfe", b'{"model": NaN}'):
        answer = strict.client.post(EMBEDDINGS, content=content, headers=JSON)
        assert_shape(answer, 422, "VALIDATION_ERROR")
    answer = strict.client.post(EMBEDDINGS, data={"input": "a"})
    assert_shape(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    answer = strict.client.post(EMBEDDINGS, content=b"x", headers={"Content-Encoding": "gzip"})
    assert_shape(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_body_that_is_too_large(strict: Strict) -> None:
    answer = strict.client.post(EMBEDDINGS, content=b" " * (MAX_BODY_BYTES + 1), headers=JSON)
    assert_shape(answer, 413, "REQUEST_TOO_LARGE")


def test_an_unknown_dtype_is_not_acceptable(strict: Strict) -> None:
    accept = {"Accept": "application/octet-stream; dtype=fp8"}
    answer = strict.client.post(EMBEDDINGS, content=body_of(), headers=accept)
    assert_shape(answer, 406, "NOT_ACCEPTABLE")


def test_unknown_paths_and_methods(strict: Strict) -> None:
    assert_shape(strict.client.get("/v1/nothing"), 404, "RESOURCE_NOT_FOUND")
    assert_shape(strict.client.get("/v1/models/gpt-4"), 404, "RESOURCE_NOT_FOUND")
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = strict.client.request(method, EMBEDDINGS)
        assert_shape(answer, 405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/v1/rerank", "leave /v1 out of its base URL"),
        ("/v1/v2/rerank", "leave /v1 out of its base URL"),
        ("/embeddings", "Put /v1 at the end"),
        ("/rerank", "Put /v1 at the end"),
        ("/nothing", "begin with /v1"),
    ],
)
def test_a_base_url_that_a_client_needs_otherwise_is_told_so(
    strict: Strict, path: str, said: str
) -> None:
    answer = strict.client.post(path, content=body_of())
    assert said in assert_shape(answer, 404, "RESOURCE_NOT_FOUND")["detail"]


def test_limits_of_a_key_do_not_charge_for_what_failed(strict: Strict) -> None:
    key = {"Authorization": f"Bearer {strict.keys['requests']}"}
    wrong = strict.client.post(EMBEDDINGS, content=body_of(dimensions=0), headers=key)
    assert_shape(wrong, 422, "VALIDATION_ERROR")
    left = []
    for _ in range(2):
        answer = strict.client.post(EMBEDDINGS, content=body_of(), headers=key)
        assert answer.status_code == 200
        left.append(answer.headers["x-ratelimit-remaining-requests"])
    assert left == ["1", "0"]
    third = strict.client.post(EMBEDDINGS, content=body_of(), headers=key)
    assert_shape(third, 429, "RATE_REQUEST_LIMIT_EXCEEDED")
    assert third.json()["error"]["type"] == "rate_limit_error"


def test_tokens_of_a_key_are_those_that_were_run(strict: Strict) -> None:
    key = {"Authorization": f"Bearer {strict.keys['tokens']}"}
    first = strict.client.post(EMBEDDINGS, content=body_of(input=["a b c"] * 2), headers=key)
    used = first.json()["usage"]["total_tokens"]
    assert first.headers["x-ratelimit-remaining-tokens"] == str(30 - used)
    refused = strict.client.post(EMBEDDINGS, content=body_of(input=["a b c"] * 4), headers=key)
    assert_shape(refused, 429, "RATE_TOKEN_LIMIT_EXCEEDED")
    again = strict.client.post(EMBEDDINGS, content=body_of(), headers=key)
    assert again.status_code == 200


def test_the_clients_own_request_id_is_echoed_if_it_is_harmless(strict: Strict) -> None:
    for given in ("abc", "0b8f-11.ee_", "x" * 128):
        answer = strict.client.get("/v1/nothing", headers={"X-Request-Id": given})
        assert assert_shape(answer, 404, "RESOURCE_NOT_FOUND")["request_id"] == given
    for given in ("", "a b", "<script>", "x" * 129, "é", '"', "a/b"):
        answer = strict.client.get("/v1/nothing", headers={b"X-Request-Id": given.encode()})
        made = assert_shape(answer, 404, "RESOURCE_NOT_FOUND")["request_id"]
        assert re.fullmatch(r"[0-9a-f]{32}", made)


def test_a_connection_serves_on_after_refusals(strict: Strict) -> None:
    with httpx.Client(
        base_url=strict.client.base_url,
        headers=strict.client.headers,
        limits=httpx.Limits(max_connections=1),
        trust_env=False,
    ) as client:
        streams = set()
        for name, (fields, status, _) in REFUSED.items():
            answer = client.post(EMBEDDINGS, content=body_of(**fields))
            assert answer.status_code == status, name
            streams.add(id(answer.extensions["network_stream"].get_extra_info("socket")))
            assert client.post(EMBEDDINGS, content=body_of()).status_code == 200, name
        assert len(streams) == 1
