"""What clients do with connections besides using them, byte by byte."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serving import ServerSettings
from serving.http.protocol import MAX_PIPELINED
from tests.http.held import HeldEngine, gauge, held_server, port_of, until
from tests.http.live import Live, live_server
from tests.http.raw import Connection, embeddings, post

QUICK = ServerSettings(port=0, upload_timeout_s=0.4, keep_alive_s=1, max_body_bytes=1 << 20)


@pytest.fixture(scope="module")
def quick(merged_float32: Path) -> Iterator[Live]:
    """A server that waits less than half a second for a client."""
    with live_server(merged_float32, QUICK) as live:
        yield live


@pytest.fixture
def held(merged_float32: Path) -> Iterator[tuple[Live, HeldEngine]]:
    with held_server(merged_float32, ServerSettings(port=0)) as server:
        yield server


def serves(live: Live) -> bool:
    response = httpx.post(
        f"{live.url}/v1/embeddings", content=embeddings("a"), trust_env=False, timeout=60
    )
    return response.status_code == 200


@pytest.mark.parametrize(
    "start", [b"", b"POST /v1/emb", b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nX-A: "]
)
def test_a_head_that_does_not_come_is_not_waited_for(quick: Live, start: bytes) -> None:
    with Connection(port_of(quick)) as slow:
        slow.send(start)
        assert serves(quick)
        assert slow.rest() == b""


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(quick: Live) -> None:
    with Connection(port_of(quick)) as slow:
        slow.send(b"POST /v1/embeddings HTTP/1.1\r\nX-A: ")
        slow.socket.settimeout(0.05)
        received = None
        while received is None:
            slow.send(b"a")
            try:
                received = slow.socket.recv(100)
            except TimeoutError:
                assert quick.client.get("/health/live").status_code == 200
            except ConnectionResetError:
                received = b""
        assert received == b""


def test_a_body_that_comes_byte_by_byte_gets_408(quick: Live) -> None:
    with Connection(port_of(quick)) as slow:
        slow.send(post(b"", length=100_000))
        slow.socket.settimeout(0.05)
        first = b""
        while not first:
            slow.send(b" ")
            try:
                first = slow.socket.recv(12)
            except TimeoutError:
                assert quick.client.get("/health/live").status_code == 200
        assert first == b"HTTP/1.1 408"
        assert b"REQUEST_TIMEOUT" in slow.rest()
    until(lambda: gauge(quick, "polyvec_bodies_bytes") == 0, "its bytes are given back")


def test_an_idle_connection_is_closed(quick: Live) -> None:
    with Connection(port_of(quick)) as idle:
        idle.send(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.reply().status == 200
        assert idle.rest() == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/embeddings HTTP/1.1\r\nX-A: " + b"a" * 200_000,
        b"POST /v1/embeddings HTTP/1.1\r\n" + b"X-A: a\r\n" * 30_000,
        b"POST /" + b"a" * 200_000,
        post(b"", headers="Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
        + b"0\r\n"
        + b"X-A: a\r\n" * 30_000,
    ],
    ids=["a header", "headers", "a path", "trailers"],
)
def test_a_head_without_end_is_refused(quick: Live, sent: bytes) -> None:
    with Connection(port_of(quick)) as connection:
        connection.send(sent)
        assert connection.rest()[:12] in (b"HTTP/1.1 400", b"")
    assert serves(quick)


def test_what_is_no_http_is_refused_in_the_shape_of_any_other_refusal(quick: Live) -> None:
    for sent in (b"\x16\x03\x01 not http at all\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"):
        with Connection(port_of(quick)) as connection:
            connection.send(sent)
            head, _, body = connection.rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"content-type: application/json" in head
        refusal = json.loads(body)
        assert refusal["detail"] == refusal["error"]["message"]
        assert (refusal["code"], len(refusal["request_id"])) == ("BAD_REQUEST", 32)


def test_chunk_extensions_without_end_take_no_memory_and_no_longer_than_a_body(quick: Live) -> None:
    with Connection(port_of(quick)) as connection:
        head = post(b"", headers="Transfer-Encoding: chunked\r\n")
        connection.send(head.replace(b"Content-Length: 0\r\n", b"") + b"1;")
        connection.send(b"a" * 4_000_000)
        assert gauge(quick, "polyvec_bodies_bytes") == 0
        assert connection.rest()[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 408", b"")


def test_requests_sent_at_once_are_answered_in_their_order(quick: Live) -> None:
    lengths = (1, 3, 2)
    with Connection(port_of(quick)) as connection:
        connection.send(b"".join(post(embeddings(*["a"] * length)) for length in lengths))
        received = connection.rest()
    bodies = re.findall(rb'"data":\[(.*?)\]\}\]', received)
    assert [body.count(b'"index"') for body in re.split(rb"HTTP/1\.1 200", received)[1:]] == [
        *lengths
    ], bodies


def test_connections_past_the_most_are_closed_and_the_others_served(merged_float32: Path) -> None:
    with live_server(merged_float32, ServerSettings(port=0, max_connections=4)) as live:
        idle = [Connection(port_of(live)) for _ in range(4)]
        try:
            for connection in idle:
                connection.send(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
                assert connection.reply().status == 200
            with Connection(port_of(live)) as late:
                late.send(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
                assert late.rest() == b""
            idle.pop().socket.close()

            def taken() -> bool:
                with Connection(port_of(live)) as another:
                    another.send(
                        b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                    )
                    return another.rest().startswith(b"HTTP/1.1 200")

            until(taken, "the place is free")
            idle[0].send(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
            assert idle[0].reply().status == 200
        finally:
            for connection in idle:
                connection.socket.close()


def _shut(connection: Connection) -> None:
    connection.socket.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    "hang_up",
    [Connection.reset, lambda connection: connection.socket.close(), _shut],
    ids=["a reset", "a close", "half a close"],
)
def test_who_hangs_up_frees_the_engine(
    held: tuple[Live, HeldEngine], hang_up: Callable[[Connection], None]
) -> None:
    live, engine = held
    turns = live.service.lane("text-matching").turns
    with Connection(port_of(live)) as connection:
        connection.send(post(embeddings("a", "b")))
        until(lambda: engine.num_waiting == 1, "it is in the engine")
        assert turns.admission.num_tokens == turns.running_tokens > 0
        hang_up(connection)
        until(lambda: engine.num_cancelled == 1, "it is cancelled")
    until(lambda: turns.admission.num_tokens == turns.running_tokens == 0, "its place is free")
    until(lambda: gauge(live, "polyvec_bodies_bytes") == 0, "its body is forgotten")
    engine.go.set()
    assert serves(live)


def test_an_upload_that_is_cut_off_leaves_nothing(merged_float32: Path) -> None:
    with live_server(merged_float32) as live:
        for hang_up in (Connection.reset, lambda connection: connection.socket.close()):
            with Connection(port_of(live)) as connection:
                connection.send(post(b" " * 100_000, length=200_000))
                until(lambda: gauge(live, "polyvec_bodies_bytes") == 100_000, "it is counted")
                hang_up(connection)
                until(lambda: gauge(live, "polyvec_bodies_bytes") == 0, "it is forgotten")


@pytest.mark.parametrize("headers", ["", "Connection: close\r\n"])
def test_an_answer_that_nobody_reads_is_thrown_away(quick: Live, headers: str) -> None:
    body = embeddings(*["1" * 1000] * 24, return_multivector=True)
    with Connection(port_of(quick), receive_bytes=4096) as silent:
        silent.send(post(body, headers=headers))
        until(lambda: gauge(quick, "polyvec_bodies_bytes") > 5_000_000, "the answer is there")
        assert serves(quick)
        until(lambda: gauge(quick, "polyvec_bodies_bytes") == 0, "it is thrown away")
        received = silent.rest()
    length = re.search(rb"content-length: (\d+)", received)
    assert length is not None
    assert len(received) < int(length[1])


def test_requests_sent_ahead_without_end_are_refused(held: tuple[Live, HeldEngine]) -> None:
    live, engine = held
    with Connection(port_of(live)) as connection:
        connection.send(post(embeddings("a")))
        until(lambda: engine.num_waiting == 1, "the first one is in the engine")
        connection.send(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n" * (MAX_PIPELINED + 1))
        assert connection.rest().startswith(b"HTTP/1.1 400")
    until(lambda: gauge(live, "polyvec_requests_in_progress") <= 1, "nothing is left of it")


def test_a_wish_for_http_2_costs_no_body_however_it_is_cut(quick: Live) -> None:
    wish = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAI\r\n"
    request = post(embeddings("a", "b"), headers=wish)
    for cut in (1, 40, len(request) - 100, len(request) - 20, len(request) - 1):
        with Connection(port_of(quick)) as connection:
            connection.send(request[:cut])
            assert quick.client.get("/health/live").status_code == 200
            connection.send(request[cut:] + post(embeddings("c")))
            first, second = connection.reply(), connection.reply()
        assert (first.status, second.status) == (200, 200)
        assert len(first.json()["data"]) == 2
        assert len(second.json()["data"]) == 1
