"""`GET /v1/models`, the pages about the API, and HEAD."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import ServerSettings
from serving.engine.fake import FakeEngine
from serving.manifest import find_tasks
from tests.http.live import Live, live_server

MODEL = "jina-embeddings-v4"
TASKS = {
    "text-matching",
    "retrieval.query",
    "retrieval.passage",
    "code.query",
    "code.passage",
}


def test_the_model_is_listed_by_itself_and_with_each_task(live: Live) -> None:
    answer = live.client.get("/v1/models").json()
    assert answer["object"] == "list"
    names = [model["id"] for model in answer["data"]]
    assert names[0] == MODEL
    assert len(names) == len(set(names))
    assert set(names[1:]) == {f"{MODEL}:{task}" for task in TASKS}
    assert {model["object"] for model in answer["data"]} == {"model"}


def test_a_model_says_what_it_gives_and_takes(live: Live) -> None:
    model = live.client.get(f"/v1/models/{MODEL}").json()
    assert model["dimensions"] == 64
    assert model["matryoshka_dimensions"] == [8, 16, 32, 64]
    assert model["multivector_dimensions"] == 32
    assert model["context_length"] == 8192
    assert model["input_modalities"] == ["text", "image", "pdf"]
    assert model["owned_by"] == MODEL
    assert model["max_image_pixels"] == 602112
    assert model["checkpoint"]["source"] == "jina-v4-mini"
    assert model["checkpoint"]["revision"] is None


def test_a_strict_client_of_the_public_api_finds_every_field_that_it_requires(live: Live) -> None:
    required = {
        *("id", "hugging_face_id", "name", "created", "input_modalities", "output_modalities"),
        *("quantization", "context_length", "max_output_length", "pricing", "description"),
        *("supported_sampling_parameters", "supported_features", "datacenters"),
    }
    for model in live.client.get("/v1/models").json()["data"]:
        assert required <= set(model)
        assert all(price == "0" for price in model["pricing"].values())
        assert model["quantization"] == "float32"
        assert model["name"] == model["id"]


def test_a_model_is_told_from_another_by_the_digest_of_its_checkpoint(live: Live) -> None:
    models = live.client.get("/v1/models").json()["data"]
    digests = {model["id"]: model["checkpoint"]["digest"] for model in models}
    assert digests[f"{MODEL}:code.query"] == digests[f"{MODEL}:code.passage"]
    # Three adapters, and all of them together.
    assert len(set(digests.values())) == 4


@pytest.mark.parametrize("name", [f"{MODEL}:code.query", f"jinaai/{MODEL}"])
def test_every_listed_or_known_name_can_be_read_and_used(live: Live, name: str) -> None:
    assert live.client.get(f"/v1/models/{name}").json()["id"] == name
    body = {"model": name, "input": "a"}
    answer = live.client.post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.json()["model"]) == (200, name)


@pytest.fixture(scope="module")
def renamed(merged_float32: Path) -> Iterator[Live]:
    """A server of one task, under a name of its own."""
    engines = {"code": FakeEngine(find_tasks(merged_float32)["code"])}
    settings = ServerSettings(port=0, model_name="ours/vectors", default_task="code.passage")
    with live_server(merged_float32, settings, engines) as live:
        yield live


def test_a_name_of_ones_own_is_listed_with_the_tasks_that_are_served(renamed: Live) -> None:
    names = [model["id"] for model in renamed.client.get("/v1/models").json()["data"]]
    assert names == ["ours/vectors", "ours/vectors:code.query", "ours/vectors:code.passage"]
    for name in ("ours/vectors", "vectors", MODEL):
        body = {"model": name, "input": "a"}
        assert renamed.client.post("/v1/embeddings", json=body).status_code == 200
    missing = renamed.client.get(f"/v1/models/{MODEL}:retrieval.query")
    assert (missing.status_code, missing.json()["code"]) == (404, "RESOURCE_NOT_FOUND")


def test_the_default_task_can_be_chosen(renamed: Live) -> None:
    def embed(**body: object) -> object:
        answer = renamed.client.post("/v1/embeddings", json={"model": MODEL, "input": "a", **body})
        return answer.json()["data"]

    assert embed() == embed(task="code.passage")
    assert embed() != embed(task="code.query")


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/docs", "/openapi.json", "/ping"])
def test_head_is_get_without_its_body(live: Live, path: str) -> None:
    got, head = live.client.get(path), live.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content)) != "0"
    assert head.headers["content-type"] == got.headers["content-type"]


def test_head_of_what_is_not_there_or_not_read(live: Live) -> None:
    assert live.client.head("/nowhere").status_code == 404
    answer = live.client.head("/v1/embeddings")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_the_documentation_is_a_page_over_the_openapi_document(live: Live) -> None:
    page = live.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in page.text
    document = live.client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    for path, method in (
        ("/v1/embeddings", "post"),
        ("/v1/rerank", "post"),
        ("/v1/score", "post"),
        ("/v1/models", "get"),
        ("/health/ready", "get"),
    ):
        assert method in document["paths"][path]


def test_answers_say_that_they_are_not_to_be_kept_or_guessed_at(live: Live) -> None:
    answer = live.client.post("/v1/embeddings", json={"model": MODEL, "input": "a"})
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    assert "content-encoding" not in answer.headers
