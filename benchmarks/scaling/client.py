"""The load, from a process of its own: as many requests on their way as asked for, and when each was answered."""

import multiprocessing
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import uvloop

from benchmarks.load.client import Client, saturate
from benchmarks.load.requests import Body


@dataclass(frozen=True, slots=True)
class Load:
    """What a client did in the counted time.

    Attributes:
        requests_per_s: answered with 200.
        p50_ms: median time to an answer.
        p99_ms: 1 in 100 took longer.
        num_failed: anything but 200.
        client_cpu_s: processor time of the client.
    """

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    num_failed: int
    client_cpu_s: float


def run_load(
    port: int, bodies: Sequence[Body], num_workers: int, seconds: float, warm_s: float
) -> Load:
    """Keep `num_workers` requests on their way."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(
        target=_client, args=(port, list(bodies), num_workers, seconds, warm_s, theirs)
    )
    process.start()
    load = mine.recv()
    process.join()
    assert isinstance(load, Load)
    return load


def _client(
    port: int,
    bodies: list[Body],
    num_workers: int,
    seconds: float,
    warm_s: float,
    parent: "Connection[object, object]",
) -> None:
    marks: list[float] = []

    async def run() -> Load:
        client = Client("127.0.0.1", port)
        frames = [client.frame(one.path, one.data) for one in bodies]
        outcomes = await saturate(
            client,
            frames,
            num_workers,
            seconds,
            warm_s=warm_s,
            on_start=lambda: marks.append(_cpu_s()),
            on_end=lambda: marks.append(_cpu_s()),
        )
        good = [outcome.latency_s * 1000 for outcome in outcomes if outcome.ok]
        return Load(
            requests_per_s=len(good) / seconds,
            p50_ms=float(np.percentile(good, 50)) if good else float("nan"),
            p99_ms=float(np.percentile(good, 99)) if good else float("nan"),
            num_failed=len(outcomes) - len(good),
            client_cpu_s=marks[1] - marks[0],
        )

    parent.send(uvloop.run(run()))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
