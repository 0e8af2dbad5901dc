"""Hundreds of connections that send their headers a byte at a time, or half a body and then nothing.

They must not cost other clients anything, and the server has to cut them off.
"""

import asyncio
import time
from collections.abc import Sequence

from benchmarks.faults.scenario import (
    MIB,
    Setting,
    Verdict,
    add_latency,
    outcome_statuses,
    watched_memory,
)
from benchmarks.load.arrivals import poisson
from benchmarks.load.client import Client, open_loop
from benchmarks.load.connection import Connection
from benchmarks.load.report import latency_of

_KIND = "text-1"
_SHARE = 0.1
_TRICKLE_S = 0.5


async def slow_clients(setting: Setting) -> Verdict:
    """Run it; see the module."""
    bounds, verdict = setting.bounds, Verdict("slow clients")
    client = setting.client()
    try:
        requests = setting.requests(client, _KIND, 256)
        rate = _SHARE * await setting.capacity(client, requests, workers=32)
        arrivals = poisson(rate, max(0.5, bounds.seconds / 3), seed=3)
        alone = await open_loop(client, requests, arrivals)
        async with watched_memory(setting.server.pid) as memory:
            slow = await _open(client, requests, bounds.num_slow)
            opened_s = time.monotonic()
            trickle = asyncio.create_task(_trickle(slow, requests[0]))
            beside = await open_loop(client, requests, arrivals)
            cut_off_s = await _until_cut_off(
                slow, opened_s + bounds.upload_timeout_s + bounds.slack_s
            )
            trickle.cancel()
            await asyncio.gather(trickle, return_exceptions=True)
        left = sum(connection.is_open for connection in slow)
        for connection in slow:
            connection.abort()
    finally:
        client.close()
    answers = outcome_statuses(beside)
    before = latency_of([outcome.latency_s for outcome in alone if outcome.ok])
    during = latency_of([outcome.latency_s for outcome in beside if outcome.ok])
    verdict.figures = {
        "slow_connections": len(slow),
        "answers": answers,
        "left_open": left,
        "memory_growth_mib": memory.growth_bytes / MIB,
    }
    if cut_off_s is not None:
        verdict.figures["all_cut_off_after_s"] = cut_off_s - opened_s
    add_latency(verdict, "alone", alone)
    add_latency(verdict, "beside", beside)
    verdict.rule("other requests are answered with 200", set(answers) == {"200"}, answers)
    bound = None if before is None else max(4 * before.p99_s, before.p99_s + 0.5)
    verdict.rule(
        "99 in 100 other requests take at most four times as long, or half a second more",
        during is not None and bound is not None and during.p99_s <= bound,
        None
        if during is None or before is None
        else f"{during.p99_s:.3f} s, {before.p99_s:.3f} s alone",
    )
    verdict.rule(
        f"slow connections are cut off within {bounds.upload_timeout_s + bounds.slack_s:g} s",
        cut_off_s is not None,
        f"{left} of {len(slow)} left",
    )
    verdict.rule(
        f"memory grows by at most {bounds.growth_bytes / MIB:.0f} MiB",
        memory.growth_bytes <= bounds.growth_bytes,
        f"{memory.growth_bytes / MIB:.0f} MiB",
    )
    return verdict


async def _open(client: Client, requests: Sequence[bytes], num_slow: int) -> list[Connection]:
    """Even ones have sent nothing yet; odd ones have sent their headers and half their body."""
    slow = []
    for number in range(num_slow):
        connection = await client.connect()
        if connection is None:
            continue
        if number % 2:
            request = requests[number % len(requests)]
            head, _, body = request.partition(b"\r\n\r\n")
            connection.send_part(head + b"\r\n\r\n" + body[: len(body) // 2])
        slow.append(connection)
    return slow


async def _trickle(slow: Sequence[Connection], request: bytes) -> None:
    head = request.partition(b"\r\n\r\n")[0]
    for at in range(len(head)):
        for connection in slow[::2]:
            if connection.is_open:
                connection.send_part(head[at : at + 1])
        await asyncio.sleep(_TRICKLE_S)


async def _until_cut_off(slow: Sequence[Connection], until_s: float) -> float | None:
    while any(connection.is_open for connection in slow):
        if time.monotonic() > until_s:
            return None
        await asyncio.sleep(0.05)
    return time.monotonic()
