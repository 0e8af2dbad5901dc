"""Which task a request is computed with, what becomes of it there, and tasks the public API does not have."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from serving import ServerSettings
from serving.engine.fake import FakeEngine
from serving.engine.protocol import Outcome, Prompt, Want
from serving.errors import ForeignInputError, NoVectorsError
from serving.manifest import MANIFEST_NAME, find_tasks
from tests.http.live import Live, live_server
from tests.http.oracle import PASSAGE, QUERY, Oracle

MODEL = "jina-embeddings-v4"
OWN = "contracts.v2"
PAIR = {"query": "a", "documents": ["b", "c d"]}
MAX_MODEL_TOKENS = 40
REFUSED = "a @"
REFUSED_ID = 31
USELESS = "a #"
USELESS_ID = 669


class WatchedEngine(FakeEngine):
    """Notes what it embeds; refuses prompts with the id `REFUSED_ID`, in its own words, and has no vectors for
    those with `USELESS_ID`."""

    def __init__(self, directory: Path, settings: ServerSettings) -> None:
        super().__init__(directory, settings)
        self.num_calls = 0

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        self.num_calls += 1
        outcomes = await super().embed(prompts, want)
        for index, prompt in enumerate(prompts):
            if REFUSED_ID in prompt.token_ids:
                outcomes[index] = ForeignInputError("secret words", origin="ValueError")
            if USELESS_ID in prompt.token_ids:
                outcomes[index] = NoVectorsError("Its values are NaN.")
        return outcomes


@pytest.fixture(scope="module")
def own(merged_float32: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server of one adapter that the public API does not have."""
    models = tmp_path_factory.mktemp("models")
    source = merged_float32 / "code"
    (models / OWN).mkdir()
    for file in source.iterdir():
        if file.name != MANIFEST_NAME:
            (models / OWN / file.name).symlink_to(file)
    manifest = orjson.loads((source / MANIFEST_NAME).read_bytes())
    (models / OWN / MANIFEST_NAME).write_bytes(orjson.dumps({**manifest, "task": OWN}))
    with live_server(models, ServerSettings(port=0, default_task=OWN)) as live:
        yield live


@pytest.fixture(scope="module")
def engines(merged_float32: Path) -> dict[str, WatchedEngine]:
    settings = ServerSettings(max_model_tokens=MAX_MODEL_TOKENS)
    directories = find_tasks(merged_float32)
    return {task: WatchedEngine(directories[task], settings) for task in ("retrieval", "code")}


@pytest.fixture(scope="module")
def small(merged_float32: Path, engines: dict[str, WatchedEngine]) -> Iterator[Live]:
    """A server of two tasks, for short prompts and few characters a request."""
    settings = ServerSettings(
        port=0, max_text_tokens=60, max_request_chars=1000, max_multivector_tokens=150
    )
    with live_server(merged_float32, settings, engines) as live:
        yield live


@pytest.fixture(scope="module")
def oracle(merged_float32: Path) -> Oracle:
    return Oracle(merged_float32 / "code")


def ask(live: Live, path: str, status: int = 200, **body: Any) -> Any:
    answer = live.client.post(path, json={"model": MODEL, **body})
    assert answer.status_code == status, answer.text
    return answer.json()


def wrong_fields(refusal: Any) -> list[str]:
    return [error["field"] for error in refusal["errors"]]


@pytest.mark.parametrize(
    ("task", "prefix"),
    [(None, QUERY), (OWN, QUERY), (f"{OWN}.query", QUERY), (f"{OWN}.passage", PASSAGE)],
)
def test_an_adapter_of_ones_own_is_served_under_its_name_with_and_without_a_side(
    own: Live, oracle: Oracle, task: str | None, prefix: str
) -> None:
    answer = ask(own, "/v1/embeddings", input=["some words"], task=task, return_multivector=True)
    assert len(answer["data"][0]["embeddings"]) == len(oracle.ids(prefix + "some words"))
    suffix = "" if task is None else f":{task}"
    named = ask(
        own,
        "/v1/embeddings",
        input=["some words"],
        model=f"{MODEL}{suffix}",
        return_multivector=True,
    )
    assert named["data"] == answer["data"]


def test_an_adapter_of_ones_own_ranks_and_is_listed(own: Live) -> None:
    answers = [
        ask(own, "/v1/rerank", **PAIR, **named)["results"]
        for named in ({}, {"task": OWN}, {"model": f"{MODEL}:{OWN}"})
    ]
    assert answers[0] == answers[1] == answers[2]
    names = [model["id"] for model in own.client.get("/v1/models").json()["data"]]
    assert names == [
        MODEL,
        *(f"{MODEL}:{task}" for task in (OWN, f"{OWN}.query", f"{OWN}.passage")),
    ]


@pytest.mark.parametrize("task", ["text-matching", "nothing", f"{OWN}.x", "retrieval.query", ""])
def test_a_task_that_is_not_served_is_refused_with_the_list(own: Live, task: str) -> None:
    refusal = ask(own, "/v1/embeddings", 422, input="a", task=task)
    assert wrong_fields(refusal) == ["task"]
    for name in (OWN, f"{OWN}.query", f"{OWN}.passage"):
        assert f"'{name}'" in refusal["detail"]
    assert wrong_fields(ask(own, "/v1/rerank", 422, **PAIR, task=task)) == ["task"]


@pytest.mark.parametrize("task", ["retrieval", "code", "text-matching", "RETRIEVAL.QUERY", ""])
def test_the_public_tasks_are_named_with_their_sides(small: Live, task: str) -> None:
    refusal = ask(small, "/v1/embeddings", 422, input="a", task=task)
    assert wrong_fields(refusal) == ["task"]
    assert "'retrieval.query', 'retrieval.passage', 'code.query'" in refusal["detail"]


@pytest.mark.parametrize(
    ("named", "task"),
    [
        ({}, "retrieval"),
        ({"task": "code"}, "code"),
        ({"model": f"{MODEL}:code.query"}, "code"),
        ({"model": f"{MODEL}:code"}, "code"),
        ({"model": f"{MODEL}:code.passage", "task": "retrieval"}, "retrieval"),
        ({"model": f"{MODEL}:code.query", "task": None}, "code"),
    ],
)
def test_the_adapter_that_ranks_is_the_tasks_then_the_models_then_the_default(
    small: Live, engines: dict[str, WatchedEngine], named: dict[str, Any], task: str
) -> None:
    for path, pair in (
        ("/v1/rerank", PAIR),
        ("/v1/score", {"text_1": "a", "text_2": ["b", "c d"]}),
    ):
        before = {name: engine.num_calls for name, engine in engines.items()}
        ask(small, path, **pair, **named)
        assert {name for name, engine in engines.items() if engine.num_calls > before[name]} == {
            task
        }


def test_the_servers_default_task_ranks_too(merged_float32: Path) -> None:
    settings = ServerSettings(port=0, default_task="code.query")
    directories = find_tasks(merged_float32)
    engines = {task: WatchedEngine(directories[task], settings) for task in ("retrieval", "code")}
    with live_server(merged_float32, settings, engines) as live:
        ask(live, "/v1/rerank", **PAIR)
    assert (engines["retrieval"].num_calls, engines["code"].num_calls) == (0, 1)


def test_without_a_default_that_is_served_the_only_adapter_ranks_or_one_must_be_named(
    merged_float32: Path,
) -> None:
    directories = find_tasks(merged_float32)
    for tasks, status in ((["code"], 200), (["code", "text-matching"], 422)):
        engines = {task: FakeEngine(directories[task]) for task in tasks}
        with live_server(merged_float32, engines=engines) as live:
            answer = ask(live, "/v1/rerank", status, **PAIR)
    assert wrong_fields(answer) == ["task"]
    assert "['code', 'text-matching']" in answer["detail"]


def test_texts_are_cut_to_what_the_engine_takes(small: Live) -> None:
    long = "word " * 50
    answer = ask(small, "/v1/embeddings", input=[long], task="retrieval.passage", truncate=True)
    assert answer["usage"]["total_tokens"] == MAX_MODEL_TOKENS
    late = {"input": [long, "b"], "task": "retrieval.passage", "late_chunking": True}
    refusal = ask(small, "/v1/embeddings", 422, **late)
    assert f"at most {MAX_MODEL_TOKENS}" in refusal["detail"]
    ranked = ask(small, "/v1/rerank", query="a", documents=[long])
    assert ranked["usage"]["total_tokens"] < MAX_MODEL_TOKENS + 10
    (model, *_) = small.client.get("/v1/models").json()["data"]
    assert model["context_length"] == MAX_MODEL_TOKENS


def test_what_the_engine_refuses_is_named_by_its_field_and_without_the_engines_words(
    small: Live,
) -> None:
    bad, good = REFUSED, "good"
    rerank, score = "/v1/rerank", "/v1/score"
    for path, body, field in (
        (rerank, {"query": bad, "documents": [good]}, "query"),
        (rerank, {"query": good, "documents": [good, bad]}, "documents.1"),
        (score, {"text_1": [good, bad], "text_2": [good, good]}, "text_1.1"),
        (score, {"queries": [good], "items": [good, good, bad]}, "items.2"),
        ("/v1/embeddings", {"input": [good, bad], "task": "code.query"}, "input.1"),
    ):
        refusal = ask(small, path, 422, **body)
        assert wrong_fields(refusal) == [field]
        assert refusal["detail"] == f"{field}: The engine refused this input."


def test_an_input_without_usable_vectors_is_the_servers_fault_and_named(
    small: Live, caplog: pytest.LogCaptureFixture
) -> None:
    for path, body, field in (
        ("/v1/rerank", {"query": "good", "documents": ["good", USELESS]}, "documents.1"),
        ("/v1/embeddings", {"input": ["good", USELESS], "task": "code.query"}, "input.1"),
    ):
        caplog.clear()
        refusal = ask(small, path, 500, **body)
        assert refusal["code"] == "INTERNAL_ERROR"
        assert refusal["detail"].startswith(f"{field}: The engine has no vectors for this input")
        (line,) = [record for record in caplog.records if record.name == "polyvec.error"]
        assert line.getMessage().endswith("Its values are NaN.")
        assert vars(line)["request_id"] == refusal["request_id"]
    assert ask(small, "/v1/embeddings", input=["good"], task="code.query")["data"]


def test_too_many_multi_vectors_are_those_of_the_documents(small: Live) -> None:
    documents = ["word " * 12] * 10
    refusal = ask(small, "/v1/rerank", 422, query="a", documents=documents)
    assert wrong_fields(refusal) == ["documents"]


def test_the_text_behind_token_ids_counts_as_text(small: Live, oracle: Oracle) -> None:
    ids = max((oracle.ids(text) for text in ("strawberry " * 8, "understanding " * 8)), key=len)
    spelled = sum(map(len, oracle.spelled(ids)))
    num_inputs = 1000 // spelled + 1
    assert num_inputs > 1
    refusal = ask(small, "/v1/embeddings", 422, input=[ids] * num_inputs, task="retrieval.passage")
    assert wrong_fields(refusal) == [f"input.{num_inputs - 1}"]
    fitting = [ids] * (num_inputs - 1)
    ask(small, "/v1/embeddings", input=fitting, task="retrieval.passage", truncate=True)
    assert wrong_fields(
        ask(small, "/v1/embeddings", 422, input=["a" * 999, "bc"], task="retrieval.passage")
    ) == ["input"]
    many = [1] * (4 * 60 + 1)
    refusal = ask(small, "/v1/embeddings", 422, input=["a", many], task="retrieval.passage")
    assert wrong_fields(refusal) == ["input.1"]


def test_a_large_body_is_read_in_a_thread_to_the_same_end(live: Live) -> None:
    padding = {"unread": "x" * (1024 * 1024)}
    for path, body in (
        ("/v1/embeddings", {"input": ["a"], "task": "code.query"}),
        ("/v1/score", {"text_1": "a", "text_2": "b"}),
    ):
        large, plain = (ask(live, path, **body, **more)["data"] for more in (padding, {}))
        assert large == plain
    assert wrong_fields(ask(live, "/v1/rerank", 422, query=1, documents=["a"], **padding)) == [
        "query"
    ]
