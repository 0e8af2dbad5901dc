"""The edge: names, keys, errors, and what every answer carries."""

import asyncio
import base64
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from serving import ServerSettings
from serving.engine.fake import FakeEngine
from serving.engine.protocol import Outcome, Prompt, Want
from serving.errors import EngineDeadError
from serving.http.caller import UNLIMITED
from serving.http.edge import Draining, Edge, Reports
from serving.http.errors import HttpError
from serving.http.key_file import add_key
from serving.http.keys import OpenDoor
from serving.http.logs import configure_logs, take_back_logs
from serving.http.metrics import Metrics
from serving.http.other_sites import OtherSites
from serving.http.tracing import configure_tracing
from serving.manifest import find_tasks
from tests.http.held import TASK
from tests.http.live import Live, live_server
from tests.http.raw import Connection, embeddings, post

SECRET = "zq7SECRETzq7"

Guarded = tuple[Live, str]


class BrokenEngine(FakeEngine):
    """Fails as it is told to."""

    error: Exception = RuntimeError(f"/srv/models: {SECRET}")

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        raise self.error


@pytest.mark.parametrize("given", ["a", "A.b_c-9", "x" * 128])
def test_a_clients_own_request_id_comes_back(live: Live, given: str) -> None:
    for path in ("/health", "/nowhere"):
        response = live.client.get(path, headers={"X-Request-Id": given})
        assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", "<script>", "a;b", "%0d%0a"])
def test_an_id_that_could_do_harm_is_replaced(live: Live, given: str) -> None:
    response = live.client.get("/nowhere", headers={"X-Request-Id": given})
    found = response.headers["x-request-id"]
    assert found != given
    assert found.isalnum()
    assert response.json()["request_id"] == found


def test_ids_differ(live: Live) -> None:
    assert len({live.client.get("/health").headers["x-request-id"] for _ in range(5)}) == 5


def test_no_answer_is_stored_or_guessed_at_by_a_browser(live: Live) -> None:
    for path in ("/health", "/docs", "/openapi.json", "/metrics", "/v1/models", "/nowhere"):
        headers = live.client.get(path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


@pytest.fixture(scope="module")
def guarded(merged_float32: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    key = add_key(path, "tester", UNLIMITED)
    with live_server(merged_float32, ServerSettings(port=0, keys=path)) as live:
        yield live, key


GUARDED = ["/v1/models", "/metrics", "/docs", "/openapi.json", "/nowhere", "/v1/embeddings", "/"]


@pytest.mark.parametrize("path", GUARDED)
def test_every_path_but_health_asks_for_a_key(guarded: Guarded, path: str) -> None:
    live, key = guarded
    response = live.client.get(path)
    assert (response.status_code, response.json()["code"]) == (401, "AUTH_MISSING_API_KEY")
    assert response.headers["www-authenticate"]
    opened = live.client.get(path, headers={"Authorization": f"Bearer {key}"})
    assert opened.status_code in (200, 404, 405)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_a_page_of_another_site_cannot_spend_the_key_that_a_browser_holds(
    guarded: Guarded, site: str
) -> None:
    live, key = guarded
    held = {"Authorization": "Basic " + base64.b64encode(f"me:{key}".encode()).decode()}
    body = {"model": "jina-embeddings-v4", "task": "retrieval.query", "input": ["hello"]}

    def sent(**headers: str) -> tuple[int, str | None]:
        answer = live.client.post("/v1/embeddings", json=body, headers=headers)
        return answer.status_code, answer.json().get("code")

    assert sent(**held, **{"Sec-Fetch-Site": site}) == (403, "CROSS_SITE_REQUEST")
    for own in ("same-origin", "none"):
        assert sent(**held, **{"Sec-Fetch-Site": own})[0] == 200
    # Programs that are no browser say nothing; a Bearer token was not sent by the browser itself.
    assert sent(**held)[0] == 200
    bearer = {"Authorization": f"Bearer {key}", "Sec-Fetch-Site": site}
    assert sent(**bearer)[0] == 200
    # A link from elsewhere opens the page.
    opened = live.client.get("/v1/models", headers={**held, "Sec-Fetch-Site": site})
    assert opened.status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/ping"])
def test_health_asks_for_none(guarded: Guarded, path: str) -> None:
    assert guarded[0].client.get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/health/../v1/models", "/health%2f..%2fv1/models", "/health/", "//health", "/HEALTH"]
)
def test_no_spelling_of_health_is_a_way_around_keys(guarded: Guarded, path: str) -> None:
    live, _ = guarded
    port = live.client.base_url.port
    assert port is not None
    with Connection(port) as connection:
        connection.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert connection.reply().status == 401


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (f"Bearer {SECRET}", "AUTH_INVALID_API_KEY"),
        ("Bearer " + "a" * 900, "AUTH_INVALID_API_KEY"),
        ("Bearer", "AUTH_INVALID_FORMAT"),
        (f"Digest {SECRET}", "AUTH_INVALID_FORMAT"),
        (f"Basic {SECRET}!", "AUTH_INVALID_FORMAT"),
        ("Basic /w==", "AUTH_INVALID_FORMAT"),
        ("Bearer " + "a" * 5000, "AUTH_INVALID_FORMAT"),
        (f"Bearer {SECRET}\u00e9\u00ff", "AUTH_INVALID_FORMAT"),
        (SECRET, "AUTH_INVALID_FORMAT"),
    ],
)
def test_a_bad_key_says_what_is_bad_and_not_what_it_was(
    guarded: Guarded, header: str, code: str
) -> None:
    live, _ = guarded
    response = live.client.get("/v1/models", headers={"Authorization": header.encode("latin-1")})
    assert (response.status_code, response.json()["code"]) == (401, code)
    assert SECRET not in response.text


def test_a_key_that_is_refused_costs_no_body(guarded: Guarded) -> None:
    live, _ = guarded
    port = live.client.base_url.port
    assert port is not None
    with Connection(port) as connection:
        connection.send(post(b"", length=10_000_000, key="nobody"))
        assert connection.reply().status == 401


@contextmanager
def logged() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logs("INFO", "json", stream)
    try:
        yield stream
    finally:
        take_back_logs()


def test_what_nobody_expected_is_500_and_tells_nothing(merged_float32: Path) -> None:
    (directory,) = find_tasks(merged_float32, [TASK]).values()
    with (
        logged() as log,
        live_server(
            merged_float32, ServerSettings(port=0), {TASK: BrokenEngine(directory)}
        ) as live,
    ):
        response = live.client.post("/v1/embeddings", content=embeddings(SECRET))
        assert (response.status_code, response.json()["code"]) == (500, "INTERNAL_ERROR")
        assert live.client.get("/health/live").status_code == 200
    request_id = response.json()["request_id"]
    records = [json.loads(line) for line in log.getvalue().splitlines()]
    errors = [record for record in records if record["level"] == "ERROR"]
    assert {record["request_id"] for record in errors} == {request_id}
    for text in (response.text, log.getvalue()):
        assert SECRET not in text
        assert "/srv" not in text


def test_an_engine_that_dies_is_503_and_tells_nothing(merged_float32: Path) -> None:
    (directory,) = find_tasks(merged_float32, [TASK]).values()
    engine = BrokenEngine(directory)
    engine.error = EngineDeadError(f"/srv/models: {SECRET}")
    with live_server(merged_float32, ServerSettings(port=0), {TASK: engine}) as live:
        response = live.client.post("/v1/embeddings", content=embeddings("a"))
    assert (response.status_code, response.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(response.headers["retry-after"]) >= 1
    assert SECRET not in response.text


def test_half_an_answer_does_not_look_whole() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError(SECRET)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    tracing = configure_tracing(ServerSettings(port=0), "1")
    edge = Edge(
        app,
        door=OpenDoor(),
        open_paths=(),
        paths={},
        browser_paths=(),
        reports=Reports(Metrics("1", (), ()), tracing),
        draining=Draining(),
        other_sites=OtherSites(),
    )
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": None}
    try:
        with pytest.raises(HttpError, match="Something went wrong"):
            asyncio.run(edge(scope, receive, send))
    finally:
        tracing.shutdown()
    assert [message.get("status", message.get("body")) for message in sent] == [200, b"half"]
