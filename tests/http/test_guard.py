"""What a request passes before and while it costs the engine something, seen from outside."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from serving import ServerSettings
from serving.http.caller import Limits
from serving.http.key_file import add_key
from tests.http.held import TASK, HeldEngine, gauge, held_server, port_of, until
from tests.http.live import Live, live_server
from tests.http.raw import Connection, embeddings, post


def embed(live: Live, *texts: str, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.post(
        f"{live.url}/v1/embeddings",
        content=embeddings(*texts),
        headers=headers,
        timeout=60,
        trust_env=False,
    )


@dataclass(frozen=True, slots=True)
class Keyed:
    """A server of one task with two callers: one with limits and one without."""

    live: Live
    engine: HeldEngine
    limited: str
    free: str


@contextmanager
def keyed(models: Path, directory: Path, limits: Limits, **settings: object) -> Iterator[Keyed]:
    path = directory / "keys.json"
    limited, free = add_key(path, "limited", limits), add_key(path, "free", Limits())
    given = ServerSettings(port=0, keys=path, metrics_without_key=True, **settings)  # type: ignore[arg-type]
    with held_server(models, given) as (live, engine):
        yield Keyed(live, engine, limited, free)


def test_an_answer_that_takes_too_long_is_504_and_the_engine_is_free(merged_float32: Path) -> None:
    settings = ServerSettings(port=0, request_timeout_s=0.3)
    with held_server(merged_float32, settings) as (live, engine):
        response = embed(live, "a")
        assert (response.status_code, response.json()["code"]) == (504, "SERVICE_TIMEOUT")
        until(lambda: engine.num_cancelled == 1, "the engine is told")
        assert live.service.lane(TASK).turns.admission.num_tokens == 0
        engine.go.set()
        assert embed(live, "a").status_code == 200


def test_a_full_queue_answers_at_once_without_the_body(merged_float32: Path) -> None:
    settings = ServerSettings(port=0, max_queued_tokens=1)
    with (
        held_server(merged_float32, settings) as (live, engine),
        Connection(port_of(live)) as first,
        Connection(port_of(live)) as second,
    ):
        first.send(post(embeddings("a")))
        until(lambda: engine.num_waiting == 1, "the queue is full")
        second.send(post(b"", length=1000))  # and nothing of it
        reply = second.reply()
        assert reply.status == 503
        assert reply.json()["code"] == "SERVICE_UNAVAILABLE"
        assert int(reply.headers["retry-after"]) >= 1
        engine.go.set()
        assert first.reply().status == 200
        until(
            lambda: live.service.lane(TASK).turns.admission.refusal("x", 1) is None, "there is room"
        )
        assert embed(live, "a").status_code == 200


def test_a_request_that_finds_no_room_is_refused_and_those_inside_are_not(
    merged_float32: Path,
) -> None:
    settings = ServerSettings(port=0, max_queued_tokens=60)
    with (
        held_server(merged_float32, settings) as (live, engine),
        Connection(port_of(live)) as first,
    ):
        first.send(post(embeddings("a")))
        until(lambda: engine.num_waiting == 1, "one waits")
        assert embed(live, *["1" * 20] * 5).status_code == 503
        engine.go.set()
        assert first.reply().status == 200


def test_a_callers_large_call_does_not_keep_its_own_query_out(merged_float32: Path) -> None:
    settings = ServerSettings(port=0, max_queued_tokens=500, max_running_tokens=100)
    with (
        held_server(merged_float32, settings) as (live, engine),
        Connection(port_of(live)) as large,
        Connection(port_of(live)) as small,
    ):
        admission = live.service.lane(TASK).turns.admission
        large.send(post(embeddings(*["many words of text"] * 300)))
        until(lambda: admission.num_tokens > 500, "the queue is more than full")
        waiting = admission.num_tokens
        small.send(post(embeddings("a")))
        until(lambda: admission.num_tokens > waiting, "it waits, too")
        assert embed(live, *["many words of text"] * 10).status_code == 503
        engine.go.set()
        assert small.reply().status == 200
        assert large.reply().status == 200


def test_a_call_that_cannot_end_in_time_is_refused_before_it_begins(merged_float32: Path) -> None:
    settings = ServerSettings(port=0, request_timeout_s=10, max_running_tokens=8)
    with held_server(merged_float32, settings) as (live, engine):
        engine.go.set()
        admission = live.service.lane(TASK).turns.admission
        admission.speed.note(is_full=True)
        time.sleep(1.2)
        admission.speed.ended(6)  # some 5 tokens a second
        admission.speed.note(is_full=False)
        refusal = embed(live, *["many words of text"] * 300)
        assert refusal.status_code == 503
        assert refusal.headers["retry-after"] == "60"
        assert "Send fewer inputs at once" in refusal.json()["detail"]
        assert embed(live, "a").status_code == 200


def test_a_server_on_its_way_out_answers_and_sends_clients_elsewhere(merged_float32: Path) -> None:
    with live_server(merged_float32) as live:
        live.draining.is_on = True
        ready = live.client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
        assert int(ready.headers["retry-after"]) >= 1
        for path in ("/health/live", "/v1/models"):
            response = live.client.get(path)
            assert (response.status_code, response.headers["connection"]) == (200, "close")
        response = embed(live, "a")
        assert (response.status_code, response.headers["connection"]) == (200, "close")


def test_a_body_too_large_is_refused_by_what_it_says_of_itself(merged_float32: Path) -> None:
    with live_server(merged_float32, ServerSettings(port=0, max_body_bytes=1000)) as live:
        with Connection(port_of(live)) as connection:
            connection.send(post(b"", length=1001))
            reply = connection.reply()
            assert (reply.status, reply.json()["code"]) == (413, "REQUEST_TOO_LARGE")
            assert connection.rest() == b""
        with Connection(port_of(live)) as connection:
            head = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
            connection.send(head + b"3e8\r\n" + b" " * 1000 + b"\r\n1\r\n \r\n")
            assert connection.reply().status == 413
            assert connection.rest() == b""
        until(lambda: gauge(live, "polyvec_bodies_bytes") == 0, "nothing is kept")


def test_all_bodies_together_are_bounded_and_one_alone_is_taken(merged_float32: Path) -> None:
    with (
        live_server(merged_float32, ServerSettings(port=0, max_bodies_bytes=1000)) as live,
        Connection(port_of(live)) as upload,
    ):
        upload.send(post(b" " * 950, length=5000))
        until(lambda: gauge(live, "polyvec_bodies_bytes") == 950, "it is counted")
        response = embed(live, "a" * 200)
        assert (response.status_code, response.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert int(response.headers["retry-after"]) >= 1
        upload.reset()
        until(lambda: gauge(live, "polyvec_bodies_bytes") == 0, "it is forgotten")
        assert embed(live, "a" * 2000).status_code == 200


def test_who_hangs_up_gives_back_a_place_and_pays_nothing(
    merged_float32: Path, tmp_path: Path
) -> None:
    limits = Limits(requests_per_minute=2, tokens_per_minute=1000, concurrency=1)
    with keyed(merged_float32, tmp_path, limits) as server:
        with Connection(port_of(server.live)) as connection:
            connection.send(post(embeddings("a"), key=server.limited))
            until(lambda: server.engine.num_waiting == 1, "it is in the engine")
            busy = embed(server.live, "a", key=server.limited)
            assert busy.json()["code"] == "RATE_CONCURRENCY_LIMIT_EXCEEDED"
            assert busy.status_code == 429
            connection.reset()
            until(lambda: server.engine.num_cancelled == 1, "it is cancelled")
        server.engine.go.set()
        until(lambda: gauge(server.live, "polyvec_requests_in_progress") <= 1, "it has left")
        answered = embed(server.live, "a", key=server.limited)
        assert answered.status_code == 200
        num_tokens = answered.json()["usage"]["total_tokens"]
        assert answered.headers["x-ratelimit-remaining-requests"] == "1"
        assert answered.headers["x-ratelimit-remaining-tokens"] == str(1000 - num_tokens)


def test_answers_that_a_caller_does_not_read_are_its_own_business(
    merged_float32: Path, tmp_path: Path
) -> None:
    much = embeddings(*["1" * 4000] * 8, return_multivector=True)
    with keyed(
        merged_float32, tmp_path, Limits(concurrency=1), max_bodies_bytes=8_000_000
    ) as server:
        server.engine.go.set()
        with Connection(port_of(server.live), receive_bytes=4096) as unread:
            unread.send(post(much, key=server.limited))
            until(
                lambda: gauge(server.live, "polyvec_bodies_bytes") > 8_000_000, "it is being sent"
            )
            # Its place is taken until it is read, and the others are served.
            busy = embed(server.live, "a", key=server.limited)
            assert (busy.status_code, busy.json()["code"]) == (
                429,
                "RATE_CONCURRENCY_LIMIT_EXCEEDED",
            )
            assert embed(server.live, "a", key=server.free).status_code == 200
            reply = unread.reply()
            assert reply.status == 200
            assert len(reply.body) > 8_000_000
        assert embed(server.live, "a", key=server.limited).status_code == 200
        with Connection(port_of(server.live), receive_bytes=4096) as unread:
            unread.send(post(much, key=server.free))
            until(
                lambda: gauge(server.live, "polyvec_bodies_bytes") > 8_000_000, "it is being sent"
            )
            # No limit of its own, but more than its share of the memory.
            full = embed(server.live, "a", key=server.free)
            assert full.status_code == 503
            assert embed(server.live, "a", key=server.limited).status_code == 200
            unread.reset()
        until(lambda: gauge(server.live, "polyvec_bodies_bytes") == 0, "it is forgotten")
        assert embed(server.live, "a", key=server.free).status_code == 200


def test_requests_that_fail_are_not_charged(merged_float32: Path, tmp_path: Path) -> None:
    limits = Limits(requests_per_minute=1, tokens_per_minute=500)
    settings = {"request_timeout_s": 0.3, "max_multivector_tokens": 5}
    with keyed(merged_float32, tmp_path, limits, **settings) as server:
        headers = {"Authorization": f"Bearer {server.limited}"}
        for content, status in [
            (b"{", 422),
            (embeddings("a", model="other"), 400),
            (embeddings("1" * 50, return_multivector=True), 422),
            (embeddings("1" * 1000), 429),
            (embeddings("a"), 504),
        ]:
            response = server.live.client.post("/v1/embeddings", content=content, headers=headers)
            assert response.status_code == status
        server.engine.go.set()
        assert embed(server.live, "a", key=server.limited).status_code == 200
        refused = embed(server.live, "a", key=server.limited)
        assert refused.json()["code"] == "RATE_REQUEST_LIMIT_EXCEEDED"
        assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize("same_key", [False, True], ids=["of another key", "of the same key"])
def test_thousands_of_texts_hold_up_one_text_for_no_more_than_its_share(
    merged_float32: Path, tmp_path: Path, same_key: bool
) -> None:
    settings = {"max_batch_prompts": 32, "max_running_tokens": 1024}
    with (
        keyed(merged_float32, tmp_path, Limits(), **settings) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        turns, engine = server.live.service.lane(TASK).turns, server.engine
        many = pool.submit(embed, server.live, *["a"] * 2048, key=server.free)
        until(lambda: engine.num_waiting > 0, "the first pieces are in the engine")
        num_ahead, queued = len(engine.pieces), turns.admission.num_tokens
        key = server.free if same_key else server.limited
        one = pool.submit(embed, server.live, "a", key=key)
        until(lambda: turns.admission.num_tokens > queued, "the other text waits as well")
        engine.go.set()
        assert one.result().status_code == 200
        assert many.result().status_code == 200
    assert len(engine.pieces) == 65
    # What the engine had already, and at most one piece that was as far as the other call.
    assert engine.pieces.index(1) <= num_ahead + 1 < 10
