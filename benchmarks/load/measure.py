"""One server on one kind of request: warm up, send, look at the clocks before and after.

It knows a running server by its port and process id, and asks it in its own words.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.load.arrivals import poisson
from benchmarks.load.client import Client, Outcome, open_loop, saturate
from benchmarks.load.cpu import CpuSeconds, cpu_seconds, own_cpu_seconds
from benchmarks.load.report import Row, make_row
from benchmarks.load.requests import KINDS, Body, Dialect, Inputs, body, vectors

_WARM_REQUESTS = 3
_MANY = 1_000_000


@dataclass(frozen=True, slots=True)
class Target:
    """A running server.

    Attributes:
        pid: the root of its processes, None where it runs elsewhere.
        key: its API key, None where it wants none.
    """

    name: str
    dialect: Dialect
    host: str
    port: int
    pid: int | None
    key: str | None = None


class AnswerError(Exception):
    """A server did not answer a first request with vectors."""


@dataclass(frozen=True, slots=True)
class _Clocks:
    wall_s: float
    server: CpuSeconds | None
    client_s: float

    @classmethod
    def read(cls, pid: int | None) -> "_Clocks":
        server = None if pid is None else cpu_seconds(pid)
        return cls(time.monotonic(), server, own_cpu_seconds())

    def server_since(self, before: "_Clocks") -> CpuSeconds | None:
        if self.server is None or before.server is None:
            return None
        return self.server - before.server


async def first_vectors(
    target: Target, kind_name: str, items: Sequence[str]
) -> tuple[list[np.ndarray], int]:
    """Vectors and tokens of one request, asked for before anything is timed.

    Raises:
        AnswerError: the answer is not 200.
    """
    kind = KINDS[kind_name]
    client = Client(target.host, target.port)
    try:
        request = _frame(client, body(target.dialect, kind, list(items)), target)
        answer = await client.send(request, keep_body=True)
    finally:
        client.close()
    if answer.status != 200 or answer.body is None:
        said = (answer.body or b"")[:500].decode("utf-8", errors="replace")
        raise AnswerError(f"{target.name} answered {kind_name} with {answer.status}: {said}")
    return vectors(target.dialect, kind, answer.body)


async def measure_saturation(
    target: Target,
    kind_name: str,
    inputs: Inputs,
    *,
    duration_s: float,
    tokens_per_request: int,
    round_number: int,
) -> Row:
    """The highest throughput: a fixed number of requests on their way at any time."""
    kind = KINDS[kind_name]
    client = Client(target.host, target.port)
    requests = _prepare(client, target, kind_name, inputs, _MANY)
    before: list[_Clocks] = []

    try:
        outcomes = await saturate(
            client,
            requests,
            kind.num_workers,
            duration_s,
            on_start=lambda: before.append(_Clocks.read(target.pid)),
            warm_s=min(2.0, duration_s / 4),
            on_end=lambda: before.append(_Clocks.read(target.pid)),
        )
    finally:
        client.close()
    start, end = before
    return make_row(
        outcomes,
        contender=target.name,
        kind=kind_name,
        mode="saturation",
        round_number=round_number,
        rate_per_s=None,
        duration_s=duration_s,
        items_per_request=kind.num_items,
        tokens_per_request=tokens_per_request,
        cpu=end.server_since(start),
        client_cpu_s=end.client_s - start.client_s,
    )


async def measure_open_loop(
    target: Target,
    kind_name: str,
    inputs: Inputs,
    *,
    rate_per_s: float,
    duration_s: float,
    tokens_per_request: int,
    round_number: int,
    seed: int,
) -> Row:
    """Latencies at a given rate of arrivals."""
    kind = KINDS[kind_name]
    client = Client(target.host, target.port)
    arrivals = poisson(rate_per_s, duration_s, seed) or [0.0]
    requests = _prepare(client, target, kind_name, inputs, len(arrivals))
    try:
        await _warm_up(client, requests)
        before = _Clocks.read(target.pid)
        outcomes = await open_loop(client, requests, arrivals)
        after = _Clocks.read(target.pid)
    finally:
        client.close()
    return make_row(
        outcomes,
        contender=target.name,
        kind=kind_name,
        mode="open",
        round_number=round_number,
        rate_per_s=rate_per_s,
        duration_s=after.wall_s - before.wall_s,
        items_per_request=kind.num_items,
        tokens_per_request=tokens_per_request,
        cpu=after.server_since(before),
        client_cpu_s=after.client_s - before.client_s,
    )


async def idle_cpu(target: Target, seconds: float) -> float:
    """Processor time a second of a server that is asked nothing."""
    before = _Clocks.read(target.pid)
    await asyncio.sleep(seconds)
    after = _Clocks.read(target.pid)
    spent = after.server_since(before)
    return 0.0 if spent is None else spent.total / (after.wall_s - before.wall_s)


async def _warm_up(client: Client, requests: Sequence[bytes]) -> list[Outcome]:
    return [await client.send_due(request, None) for request in requests[:_WARM_REQUESTS]]


def _prepare(
    client: Client, target: Target, kind_name: str, inputs: Inputs, num_requests: int
) -> list[bytes]:
    kind = KINDS[kind_name]
    return [
        _frame(client, body(target.dialect, kind, items), target)
        for items in inputs.draw(kind, num_requests)
    ]


def _frame(client: Client, made: Body, target: Target) -> bytes:
    return client.frame(made.path, made.data, key=target.key)
