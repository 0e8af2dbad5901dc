"""The bodies that other clients send, written out; each with the headers and the reading of its client."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import requests

from pooling import binary, ubinary
from serving import Embedder
from tests.conftest import Golden
from tests.http.clients.conftest import MODEL, Served
from tests.http.clients.vectors import assert_same, base64_of, data_uri, from_base64

TEXTS = ["a text", "", "海滩上美丽的日落"]
TASK = "text-matching"
Post = Callable[..., Any]


@pytest.fixture
def session(served: Served) -> Iterator[requests.Session]:
    """As LlamaIndex, Chroma and LangChain make theirs."""
    with requests.Session() as session:
        session.headers.update(
            {"Authorization": f"Bearer {served.key}", "Accept-Encoding": "identity"}
        )
        yield session


@pytest.fixture
def post(served: Served, session: requests.Session) -> Post:
    def send(path: str = "embeddings", **body: Any) -> Any:
        response = session.post(f"{served.url}/v1/{path}", json={"model": MODEL, **body})
        assert "Content-Encoding" not in response.headers
        return response.json()

    return send


def vectors(answer: Any) -> list[Any]:
    """As all of these clients read an answer: `data`, sorted by index."""
    if "data" not in answer:
        raise RuntimeError(answer["detail"])
    return [item["embedding"] for item in sorted(answer["data"], key=lambda item: item["index"])]


def test_the_curl_line_of_the_public_documentation(
    served: Served, api: Embedder, golden: Golden
) -> None:
    body = {
        "model": "jina-embeddings-v4",
        "task": "text-matching",
        "late_chunking": None,
        "truncate": True,
        "dimensions": None,
        "embedding_type": None,
        "input": [
            {"text": "Organic skincare for sensitive skin"},
            {"image": served.image_url},
            {"image": base64_of(golden.images[0])},
        ],
    }
    request = urllib.request.Request(
        f"{served.url}/v1/embeddings",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {served.key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        answer = json.load(response)
    expected = api.encode([body["input"][0]["text"], served.image, golden.images[0]], task=TASK)
    assert_same(vectors(answer), expected)
    assert answer["usage"]["image_tokens"] < answer["usage"]["total_tokens"]


@pytest.mark.parametrize("encoding", ["float", "base64", "binary", "ubinary"])
def test_llamaindex_texts(post: Post, api: Embedder, encoding: str) -> None:
    answer = post(
        input=TEXTS,
        encoding_type=encoding,
        task="retrieval.passage",
        dimensions=32,
        late_chunking=False,
    )
    expected = api.encode_document(TEXTS, task="retrieval", truncate_dim=32, convert_to_tensor=True)
    match encoding:
        case "float":
            assert_same(vectors(answer), expected.numpy())
        case "base64":
            assert_same([from_base64(text) for text in vectors(answer)], expected.numpy())
        case "ubinary":
            # It unpacks the bits itself, as uint8.
            bits = [np.unpackbits(np.array(one, dtype="uint8")) for one in vectors(answer)]
            assert np.array_equal(np.stack(bits), expected.numpy() > 0)
            assert vectors(answer) == ubinary(expected).tolist()
        case _:
            bits = [np.unpackbits((np.array(one) + 128).astype("uint8")) for one in vectors(answer)]
            assert np.array_equal(np.stack(bits), expected.numpy() > 0)
            assert vectors(answer) == binary(expected).tolist()


def test_llamaindex_images(post: Post, api: Embedder, golden: Golden, served: Served) -> None:
    answer = post(
        input=[{"bytes": base64_of(golden.images[0])}, {"url": served.image_url}],
        encoding_type="float",
    )
    assert_same(vectors(answer), api.encode([golden.images[0], served.image], task=TASK))


def test_chroma_texts_and_images(post: Post, api: Embedder, golden: Golden) -> None:
    # Its embedding function sends null for what was not set, and images as base64.
    texts = post(
        input=TEXTS,
        task=None,
        late_chunking=None,
        truncate=None,
        dimensions=None,
        embedding_type=None,
        normalized=None,
    )
    assert_same(vectors(texts), api.encode(TEXTS, task=TASK))
    mixed = post(input=[{"text": TEXTS[0]}, {"image": base64_of(golden.images[0])}])
    assert_same(vectors(mixed), api.encode([TEXTS[0], golden.images[0]], task=TASK))


def test_weaviate_mixes_texts_and_images_and_relies_on_the_order(
    post: Post, api: Embedder, golden: Golden
) -> None:
    mixed: list[dict[str, str]] = []
    expected: list[object] = []
    for number, image in enumerate(golden.images[:3]):
        mixed += [{"text": f"text {number}"}, {"image": base64_of(image)}]
        expected += [f"text {number}", image]
    answer = post(input=mixed, normalized=True, task="retrieval.passage", truncate=True)
    assert_same(vectors(answer), api.encode_document(expected, task="retrieval"))
    assert [item["index"] for item in answer["data"]] == list(range(6))


def test_weaviate_multi_vectors(post: Post, api: Embedder) -> None:
    answer = post(input=TEXTS, task="retrieval.query", return_multivector=True)
    expected = api.encode_query(TEXTS, task="retrieval", return_multivector=True)
    assert_same([item["embeddings"] for item in answer["data"]], expected)
    assert {item["object"] for item in answer["data"]} == {"embeddings"}


def test_qdrant_image_url_in_openais_words(
    post: Post, api: Embedder, golden: Golden, served: Served
) -> None:
    answer = post(
        input=[
            {"image": served.image_url},
            {"image_url": {"url": data_uri(golden.images[0])}},
            {"content": [{"type": "text", "text": "a text"}]},
        ]
    )
    assert_same(vectors(answer), api.encode([served.image, golden.images[0], "a text"], task=TASK))


def test_pinecone_and_others_read_one_input_that_is_a_plain_string(
    post: Post, api: Embedder
) -> None:
    assert_same(vectors(post(input="a text")), api.encode(["a text"], task=TASK))


def test_an_image_that_is_a_plain_data_uri(post: Post, api: Embedder, golden: Golden) -> None:
    answer = post(input=[data_uri(golden.images[0]), "data:text/plain;base64,aGVsbG8="])
    expected = api.encode([golden.images[0], "data:text/plain;base64,aGVsbG8="], task=TASK)
    assert_same(vectors(answer), expected)


def test_clients_that_read_detail_get_a_sentence(post: Post) -> None:
    for wrong in ({"input": []}, {"input": "a", "task": "nonsense"}, {"input": {"image": "?"}}):
        with pytest.raises(RuntimeError, match=r"\w+ \w+"):
            vectors(post(**wrong))
    with pytest.raises(RuntimeError, match=MODEL):
        vectors(post(model="jina-clip-v2", input="a"))


def test_cohere_reranks_at_its_own_path(served: Served) -> None:
    # ClientV2 of the cohere package: these headers, this path under its base URL.
    with httpx.Client(
        headers={"Authorization": f"Bearer {served.key}", "X-Client-Name": "cohere"},
        trust_env=False,
    ) as client:
        answer = client.post(
            f"{served.url}/v2/rerank",
            json={
                "model": MODEL,
                "query": "cities in Germany",
                "documents": ["something else", "cities in Germany", "zzz"],
                "top_n": 2,
                "max_tokens_per_doc": 4096,
            },
        ).json()
    assert answer["results"][0]["index"] == 1
    assert len(answer["results"]) == 2
    assert answer["id"]
    assert answer["meta"]["api_version"]["version"] == "2"


def test_jina_reranks_images_for_a_text(post: Post, golden: Golden) -> None:
    answer = post(
        "rerank",
        query="a text",
        documents=[{"image": data_uri(golden.images[0])}, {"text": "a text"}, "zzz"],
        return_documents=False,
    )
    assert {result["index"] for result in answer["results"]} == {0, 1, 2}
    assert answer["results"][0]["index"] == 1
    assert all(set(result) == {"index", "relevance_score"} for result in answer["results"])


def test_a_client_in_any_language_sees_refusals_without_a_key(served: Served) -> None:
    request = urllib.request.Request(f"{served.url}/v1/models")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert json.load(answer)["code"] == "AUTH_MISSING_API_KEY"
