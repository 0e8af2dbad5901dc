"""The openai package, with nothing changed but its base URL and key."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from pooling import binary, ubinary
from serving import Embedder
from serving.engine.fake import FakeEngine
from serving.manifest import find_tasks
from tests.conftest import Golden
from tests.http.clients.conftest import MODEL, Served
from tests.http.clients.vectors import assert_same, data_uri, from_base64
from tests.http.live import live_server

TEXTS = ["a text", "", "海滩上美丽的日落", "https://example.com/not-fetched.png"]


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as client:
        yield client


def test_texts_by_default_come_as_base64_and_are_the_python_apis(
    client: openai.OpenAI, api: Embedder
) -> None:
    answer = client.embeddings.create(model=MODEL, input=TEXTS)
    assert_same([item.embedding for item in answer.data], api.encode(TEXTS, task="text-matching"))
    assert [item.index for item in answer.data] == [0, 1, 2, 3]
    assert (answer.model, answer.object, answer.data[0].object) == (MODEL, "list", "embedding")
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > len(TEXTS)


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_each_encoding_that_openai_knows(
    client: openai.OpenAI, api: Embedder, encoding_format: str
) -> None:
    answer = client.embeddings.create(
        model=MODEL, input=TEXTS, encoding_format=encoding_format, user="someone"
    )
    vectors = [item.embedding for item in answer.data]
    if encoding_format == "base64":
        vectors = [from_base64(vector) for vector in vectors]
    assert_same(vectors, api.encode(TEXTS, task="text-matching"))


@pytest.mark.parametrize("task", ["retrieval.query", "retrieval.passage", "code.passage"])
def test_the_task_goes_into_the_body_beside_dimensions(
    client: openai.OpenAI, api: Embedder, task: str
) -> None:
    name, prompt_name = task.split(".")
    answer = client.embeddings.create(
        model=MODEL, input=TEXTS, dimensions=16, extra_body={"task": task}
    )
    expected = api.encode(TEXTS, task=name, prompt_name=prompt_name, truncate_dim=16)
    assert_same([item.embedding for item in answer.data], expected)
    named = client.embeddings.create(model=f"{MODEL}:{task}", input=TEXTS, dimensions=16)
    assert_same([item.embedding for item in named.data], expected)
    assert named.model == f"{MODEL}:{task}"


def test_token_ids_are_the_text_they_stand_for(
    client: openai.OpenAI, api: Embedder, merged_float32: Path
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(merged_float32 / "retrieval" / "tokenizer.json"))
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in ("a text", "another")]
    expected = api.encode(["a text", "another"], task="text-matching")
    several = client.embeddings.create(model=MODEL, input=ids)
    assert_same([item.embedding for item in several.data], expected)
    one = client.embeddings.create(model=MODEL, input=ids[1])
    assert_same([item.embedding for item in one.data], expected[1:])


def test_images_and_texts_mixed_as_extra_body(
    client: openai.OpenAI, api: Embedder, golden: Golden
) -> None:
    # openai's types know texts only; what it does not check it passes on.
    mixed = [{"image": data_uri(golden.images[0])}, "a text", data_uri(golden.images[3])]
    answer = client.embeddings.create(model=MODEL, input=mixed)  # type: ignore[arg-type]
    expected = api.encode(
        [golden.images[0], "a text", golden.images[3]], task="text-matching", prompt_name="query"
    )
    assert_same([item.embedding for item in answer.data], expected)


def test_the_contracts_own_name_of_the_format_may_be_asked_for(
    client: openai.OpenAI, api: Embedder
) -> None:
    # The client adds `encoding_format="base64"` by itself.
    expected = api.encode(TEXTS, task="text-matching")
    for name in ("float", "base64"):
        got = client.embeddings.create(
            model=MODEL, input=TEXTS, extra_body={"embedding_type": name}
        )
        assert_same([one.embedding for one in got.data], expected)
    both = client.embeddings.create(
        model=MODEL, input=TEXTS, extra_body={"embedding_type": ["float", "ubinary"]}
    )
    assert all(set(one.embedding) == {"float", "ubinary"} for one in both.data)  # type: ignore[comparison-overlap]


def test_binary_needs_only_extra_body(client: openai.OpenAI, api: Embedder) -> None:
    # The client would decode what is a string; lists of integers pass through.
    vectors = api.encode(TEXTS, task="text-matching", convert_to_tensor=True)
    for name, pack in (("binary", binary), ("ubinary", ubinary)):
        answer = client.embeddings.create(
            model=MODEL,
            input=TEXTS,
            encoding_format="float",
            extra_body={"encoding_format": name},
        )
        assert [item.embedding for item in answer.data] == pack(vectors).tolist()


def test_the_asynchronous_client_gets_the_same(served: Served, api: Embedder) -> None:
    async def embed() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.key) as client:
            answers = await asyncio.gather(
                *(client.embeddings.create(model=MODEL, input=text) for text in TEXTS)
            )
        return [answer.data[0].embedding for answer in answers]

    assert_same(asyncio.run(embed()), api.encode(TEXTS, task="text-matching"))


def test_models_are_listed_and_read(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == MODEL
    assert f"{MODEL}:retrieval.query" in names
    assert client.models.retrieve(MODEL).owned_by == MODEL
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "RESOURCE_NOT_FOUND"


def test_headers_are_there_for_who_asks(client: openai.OpenAI) -> None:
    raw = client.embeddings.with_raw_response.create(
        model=MODEL, input="a", extra_headers={"X-Request-Id": "my-own.1"}
    )
    assert raw.headers["x-request-id"] == "my-own.1"
    assert raw.headers["content-type"] == "application/json"
    assert len(raw.parse().data) == 1
    assert client.embeddings.create(model=MODEL, input="a")._request_id


def test_a_wrong_key_is_an_authentication_error(served: Served) -> None:
    with (
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="pv-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.embeddings.create(model=MODEL, input="a")
    assert (caught.value.status_code, caught.value.code) == (401, "AUTH_INVALID_API_KEY")
    assert caught.value.type == "authentication_error"
    assert caught.value.request_id


def test_another_model_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert caught.value.code == "INPUT_MODEL_NOT_FOUND"
    assert MODEL in caught.value.message


def test_a_wrong_field_is_an_unprocessable_entity_that_names_it(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.embeddings.create(model=MODEL, input="a", dimensions=0)
    assert (caught.value.code, caught.value.param) == ("VALIDATION_ERROR", "dimensions")
    assert caught.value.type == "invalid_request_error"


def test_too_many_requests_are_a_rate_limit_error_that_says_when_to_come_back(
    served: Served,
) -> None:
    with openai.OpenAI(
        base_url=f"{served.url}/v1", api_key=served.single_use_key, max_retries=0
    ) as client:
        with pytest.raises(openai.UnprocessableEntityError):
            client.embeddings.create(model=MODEL, input="a", dimensions=0)
        raw = client.embeddings.with_raw_response.create(model=MODEL, input="a")
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as caught:
            client.embeddings.create(model=MODEL, input="a")
    assert (caught.value.code, caught.value.type) == (
        "RATE_REQUEST_LIMIT_EXCEEDED",
        "rate_limit_error",
    )
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_an_engine_that_is_away_is_an_internal_server_error_to_be_tried_again(
    merged_float32: Path,
) -> None:
    engine = FakeEngine(find_tasks(merged_float32)["code"])
    asyncio.run(engine.close())
    with (
        live_server(merged_float32, engines={"code": engine}) as live,
        openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.embeddings.create(model=f"{MODEL}:code.query", input="a")
    assert (caught.value.status_code, caught.value.code) == (503, "SERVICE_UNAVAILABLE")
    assert caught.value.response.headers["retry-after"] == "5"
