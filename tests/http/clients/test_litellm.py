"""LiteLLM, which speaks to this server as three of its providers."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from serving import Embedder
from tests.conftest import Golden
from tests.http.clients.conftest import MODEL, Served
from tests.http.clients.vectors import assert_same, data_uri, from_base64

TEXTS = ["a text", "海滩上美丽的日落"]
DOCUMENTS = ["something else", "cities in Germany", "zzz"]


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # Before the first import: the table of prices is fetched otherwise.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    # Its plain calls make an event loop of their own where there is none, and leave it open.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield litellm
    asyncio.set_event_loop(None)
    loop.close()


def to(served: Served, *, path: str = "/v1") -> dict[str, Any]:
    return {"api_base": f"{served.url}{path}", "api_key": served.key, "max_retries": 0}


@pytest.mark.parametrize("provider", ["jina_ai", "openai"])
def test_texts_are_the_python_apis(
    litellm: Any, served: Served, api: Embedder, provider: str
) -> None:
    answer = litellm.embedding(model=f"{provider}/{MODEL}", input=TEXTS, **to(served))
    expected = api.encode(TEXTS, task="text-matching")
    assert_same([item["embedding"] for item in answer.data], expected)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_the_asynchronous_call_gets_the_same(litellm: Any, served: Served, api: Embedder) -> None:
    async def embed() -> Any:
        answer = await litellm.aembedding(model=f"jina_ai/{MODEL}", input=TEXTS, **to(served))
        await litellm.close_litellm_async_clients()
        return answer

    answer = asyncio.run(embed())
    expected = api.encode(TEXTS, task="text-matching")
    assert_same([item["embedding"] for item in answer.data], expected)


@pytest.mark.parametrize("provider", ["jina_ai", "openai"])
def test_task_and_dimensions_are_passed_on(
    litellm: Any, served: Served, api: Embedder, provider: str
) -> None:
    answer = litellm.embedding(
        model=f"{provider}/{MODEL}",
        input=TEXTS,
        dimensions=16,
        allowed_openai_params=["dimensions"],
        extra_body={"task": "retrieval.passage"},
        task="retrieval.passage",
        **to(served),
    )
    expected = api.encode_document(TEXTS, task="retrieval", truncate_dim=16)
    assert_same([item["embedding"] for item in answer.data], expected)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # its own types know floats only
def test_base64_stays_base64(litellm: Any, served: Served, api: Embedder) -> None:
    answer = litellm.embedding(
        model=f"openai/{MODEL}", input=TEXTS, encoding_format="base64", **to(served)
    )
    vectors = [from_base64(item["embedding"]) for item in answer.data]
    assert_same(vectors, api.encode(TEXTS, task="text-matching"))


def test_images_and_texts_mixed(
    litellm: Any, served: Served, api: Embedder, golden: Golden
) -> None:
    # This provider cuts data URIs to {"image": base64}, and makes texts {"text"}.
    answer = litellm.embedding(
        model=f"jina_ai/{MODEL}",
        input=["a text", data_uri(golden.images[0]), data_uri(golden.images[3])],
        **to(served),
    )
    expected = api.encode(["a text", golden.images[0], golden.images[3]], task="text-matching")
    assert_same([item["embedding"] for item in answer.data], expected)


@pytest.mark.parametrize(("provider", "path"), [("jina_ai", "/v1"), ("cohere", "")])
def test_documents_are_ranked_best_first(
    litellm: Any, served: Served, provider: str, path: str
) -> None:
    answer = litellm.rerank(
        model=f"{provider}/{MODEL}",
        query="cities in Germany",
        documents=DOCUMENTS,
        top_n=2,
        return_documents=True,
        **to(served, path=path),
    )
    assert answer.id
    assert answer.results[0]["index"] == 1
    scores = [result["relevance_score"] for result in answer.results]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    assert answer.results[0]["document"] == {"text": "cities in Germany"}


def test_errors_are_litellms_own(litellm: Any, served: Served) -> None:
    wrong_key = {**to(served), "api_key": "pv-wrong"}
    with pytest.raises(litellm.AuthenticationError, match="key is not known"):
        litellm.embedding(model=f"openai/{MODEL}", input=TEXTS, **wrong_key)
    with pytest.raises(litellm.BadRequestError, match=MODEL):
        litellm.embedding(model="openai/text-embedding-3-small", input=TEXTS, **to(served))
    # What this provider answers with is always a connection error; our words are in it.
    with pytest.raises(litellm.APIConnectionError, match="AUTH_INVALID_API_KEY"):
        litellm.embedding(model=f"jina_ai/{MODEL}", input=TEXTS, **wrong_key)
