"""A server measured over HTTP: the figures of the Python API, and what it refuses in one line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.quality.errors import ServerError
from benchmarks.quality.server import ServerSource
from benchmarks.quality.source import Ask
from serving import ServerSettings
from serving.http.caller import Limits
from serving.http.key_file import add_key
from tests.benchmarks.quality.corpora import PAGES, fake_source, measured, page, result_files
from tests.http.live import Live, live_server


@pytest.fixture(scope="module")
def live(merged_float32: Path) -> Iterator[Live]:
    with live_server(merged_float32) as server:
        yield server


@pytest.mark.parametrize(
    "options",
    [("single",), ("multi",), ("single", 16), ("single", None, "int8"), ("multi", None, "binary")],
)
def test_a_server_and_the_python_api_give_the_same_files(
    options: Any,
    live: Live,
    merged_float32: Path,
    pages: Path,
    texts: Path,
    pairs: Path,
    tmp_path: Path,
) -> None:
    what = measured(*options)
    directories = [pages, texts, *([pairs] if options[0] == "single" else [])]
    ours = fake_source(merged_float32)
    theirs = ServerSource.of(live.url + "/v1/", None)
    assert ours.model.name == theirs.model.name
    by_api = result_files(ours, tmp_path / "api", what, *directories)
    by_server = result_files(theirs, tmp_path / "server", what, *directories)
    assert len(by_api) == len(directories)
    assert by_server == by_api


def test_answers_come_in_the_order_of_many_requests(live: Live, merged_float32: Path) -> None:
    items = [f"text {n}" for n in range(150)] + [page(name) for name in PAGES] * 2
    ours, theirs = fake_source(merged_float32), ServerSource.of(live.url, None)
    ours.start(["retrieval"])
    ask = Ask("retrieval", "passage", "multi")
    for one, other in zip(ours.embed(items, ask), theirs.embed(items, ask), strict=True):
        assert one.equal(other)
    ours.close()
    theirs.close()


def test_a_model_is_what_the_server_says_of_its_checkpoint(
    live: Live, merged_float32: Path
) -> None:
    source = ServerSource.of(live.url, None)
    source.close()
    theirs, ours = source.model, fake_source(merged_float32).model
    assert theirs.max_tokens == 8192
    assert (theirs.revision, theirs.adapters) == (ours.revision, ours.adapters)
    assert (theirs.dim, theirs.multi_vector_dim, theirs.max_pixels) == (64, 32, 602112)
    one = live.client.get("/v1/models/jina-embeddings-v4:code.query").json()["checkpoint"]
    assert one["digest"] == fake_source(merged_float32 / "code").model.revision


def test_a_key_opens_the_server_and_its_lack_says_where_to_put_one(
    merged_float32: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    key = add_key(keys, "tester", Limits(None, None, None))
    with live_server(merged_float32, ServerSettings(port=0, keys=keys)) as server:
        with pytest.raises(ServerError, match=r"answered 401.*POLYVEC_API_KEY"):
            ServerSource.of(server.url, None)
        source = ServerSource.of(server.url, key)
        assert len(source.embed(["one"], Ask("code", "query", "single"))) == 1
        source.close()


def test_what_the_server_refuses_is_said_in_its_words(live: Live) -> None:
    source = ServerSource.of(live.url, None)
    with pytest.raises(ServerError, match=r"answered 422: .*not served here"):
        source.embed(["one"], Ask("poetry", "query", "single"))
    # Its requests have no place for this prefix: it would be another one's figures.
    with pytest.raises(ServerError, match=r"has no text-matching\.passage"):
        source.embed(["one"], Ask("text-matching", "passage", "single"))
    source.close()


def answering(monkeypatch: pytest.MonkeyPatch, *answers: httpx.Response) -> list[str]:
    """Answers of a server that is none, in turn; gives the paths that were asked for."""
    left, asked = list(answers), list[str]()

    def send(client: httpx.Client, request: httpx.Request) -> httpx.Response:
        del client
        asked.append(request.url.path)
        answer = left.pop(0)
        answer.request = request
        return answer

    monkeypatch.setattr(httpx.Client, "send", send)
    return asked


def test_a_busy_server_is_asked_again_when_it_says(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = live.client.get("/v1/models")
    waits: list[float] = []
    monkeypatch.setattr("benchmarks.quality.server.time.sleep", waits.append)
    busy = httpx.Response(503, headers={"Retry-After": "7"}, json={"detail": "full"})
    asked = answering(monkeypatch, busy, httpx.Response(200, content=listing.content))
    ServerSource.of("http://somewhere", None).close()
    assert (asked, waits) == (["/v1/models"] * 2, [7.0])


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={"data": []}),
        httpx.Response(200, json={"data": [{"id": "another"}]}),
        httpx.Response(200, text="<html>"),
    ],
)
def test_what_is_no_polyvec_server_is_refused(
    answer: httpx.Response, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, answer)
    with pytest.raises(ServerError, match="polyvec server of this release"):
        ServerSource.of("http://somewhere", None)


def test_nobody_there_is_one_line() -> None:
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:9 does not answer \(ConnectError"):
        ServerSource.of("http://127.0.0.1:9", None)
    with pytest.raises(ServerError, match="does not answer"):
        ServerSource.of("not a url", None)
