import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from benchmarks.load.arrivals import poisson
from benchmarks.load.client import Client, Outcome, open_loop, saturate
from benchmarks.load.connection import Answer, Failure
from benchmarks.load.report import (
    latency_of,
)

Handle = Callable[[int], Awaitable[bytes]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def answers(status: int, headers: bytes = b"", text: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(text), text)


class StubServer:
    """Reads requests without a body; `handle` says what the n-th of all is answered, b"" being nothing."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._count = 0

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                number = self._count
                self._count += 1
                answer = await self._handle(number)
                if not answer:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def ask(handle: Handle, arrivals: list[float], *, max_connections: int = 100) -> list[Outcome]:
    async def run() -> list[Outcome]:
        async with StubServer(handle) as port:
            client = Client("127.0.0.1", port, max_connections=max_connections, timeout_s=5)
            try:
                return await open_loop(client, [client.frame_get("/")], arrivals)
            finally:
                client.close()

    return asyncio.run(run())


async def at_once(_: int) -> bytes:
    return OK


# Arrivals


def test_arrivals_are_in_order_and_before_the_end() -> None:
    due = poisson(200.0, 5.0, seed=3)
    assert due == sorted(due)
    assert due[0] > 0
    assert due[-1] < 5.0


def test_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    due = poisson(1000.0, 50.0, seed=0)
    # 50,000 expected, with a deviation of 224.
    assert abs(len(due) - 50_000) < 5 * 224
    gaps = np.diff(due)
    assert abs(float(gaps.std()) / float(gaps.mean()) - 1) < 0.03


def test_arrivals_are_the_same_for_the_same_seed_alone() -> None:
    assert poisson(50.0, 2.0, seed=1) == poisson(50.0, 2.0, seed=1)
    assert poisson(50.0, 2.0, seed=1) != poisson(50.0, 2.0, seed=2)


def test_arrivals_at_a_low_rate_may_be_none() -> None:
    assert poisson(1e-6, 1.0, seed=0) == []


@pytest.mark.parametrize(("rate", "duration"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
def test_arrivals_without_a_rate_or_a_duration_are_refused(rate: float, duration: float) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        poisson(rate, duration, seed=0)


# Client


def test_every_request_of_the_open_loop_is_answered() -> None:
    outcomes = ask(at_once, poisson(2000.0, 0.1, seed=0))
    assert len(outcomes) > 100
    assert all(outcome.ok and outcome.answer.num_bytes == 2 for outcome in outcomes)


def test_requests_are_sent_although_earlier_ones_were_not_answered_and_a_stall_is_in_the_percentiles() -> (
    None
):
    arrivals = [number * 0.002 for number in range(60)]
    came = asyncio.Event()

    async def stall(number: int) -> bytes:
        # A client that waits for its answers would never send the request that ends the stall.
        if number == 50:
            came.set()
        if number >= 20:
            await came.wait()
        return OK

    outcomes = ask(stall, arrivals)
    latency = latency_of([outcome.latency_s for outcome in outcomes])
    assert latency is not None
    assert latency.p99_s >= arrivals[50] - arrivals[20] - 0.002
    stalled = [outcome for outcome in outcomes if outcome.latency_s >= 0.02]
    assert len(stalled) >= 20


def test_latency_counts_from_when_a_request_was_due_even_where_the_client_could_not_send_it() -> (
    None
):
    async def first_is_slow(number: int) -> bytes:
        if number == 0:
            await asyncio.sleep(0.1)
        return OK

    outcomes = ask(first_is_slow, [0.0, 0.01, 0.02], max_connections=1)
    assert [outcome.answer.status for outcome in outcomes] == [200, 200, 200]
    assert outcomes[2].sent_s - outcomes[2].due_s > 0.05
    assert outcomes[2].latency_s > 0.05


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", Failure.CLOSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhalf", Failure.TIMEOUT),
        (b"this is not HTTP at all\r\n\r\n", Failure.TRUNCATED),
        (answers(503, b"Retry-After: 7\r\n"), 503),
    ],
)
def test_an_answer_that_is_none_says_why(answer: bytes, expected: int | Failure) -> None:
    async def run() -> Answer:
        async def handle(_: int) -> bytes:
            return answer

        async with StubServer(handle) as port:
            client = Client("127.0.0.1", port, timeout_s=0.2)
            try:
                return await client.send(client.frame_get("/"))
            finally:
                client.close()

    got = asyncio.run(run())
    assert got.status == expected
    assert got.retry_after == ("7" if expected == 503 else None)


def test_a_port_nobody_listens_on_is_refused() -> None:
    async def run() -> Answer:
        async with StubServer(at_once) as port:
            pass
        client = Client("127.0.0.1", port)
        return await client.send(client.frame_get("/"))

    assert asyncio.run(run()).status is Failure.REFUSED


def test_connections_are_used_again() -> None:
    async def run() -> tuple[int, list[Answer]]:
        opened = 0

        class Counting(StubServer):
            async def _serve(
                self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
            ) -> None:
                nonlocal opened
                opened += 1
                await super()._serve(reader, writer)

        async with Counting(at_once) as port:
            client = Client("127.0.0.1", port)
            made = [await client.send(client.frame_get("/"), keep_body=True) for _ in range(5)]
            client.close()
        return opened, made

    opened, made = asyncio.run(run())
    assert opened == 1
    assert [answer.body for answer in made] == [b"hi"] * 5


def test_saturation_keeps_as_many_requests_on_their_way_as_it_is_told() -> None:
    most = 0
    now = 0
    marks: list[str] = []

    async def slow(_: int) -> bytes:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return OK

    async def run() -> list[Outcome]:
        async with StubServer(slow) as port:
            client = Client("127.0.0.1", port)
            try:
                return await saturate(
                    client,
                    [client.frame_get("/")],
                    7,
                    0.2,
                    warm_s=0.05,
                    on_start=lambda: marks.append("start"),
                    on_end=lambda: marks.append("end"),
                )
            finally:
                client.close()

    outcomes = asyncio.run(run())
    assert most == 7
    assert marks == ["start", "end"]
    assert outcomes
    assert all(outcome.ok for outcome in outcomes)


# Report
