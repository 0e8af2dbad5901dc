"""A thousand clients that send a request and hang up, some within their body, three times.

What they asked for must not be computed for nobody: the engine has to be free soon, and memory must
not grow from one wave to the next.
"""

import asyncio
import random
import time

from benchmarks.faults.scenario import MIB, Setting, Verdict, statuses
from benchmarks.load.client import Client
from benchmarks.load.connection import Answer
from benchmarks.load.cpu import rss_bytes
from benchmarks.load.report import latency_of

_KIND = "text-64"
_PROBE_KIND = "text-1"
_NUM_WAVES = 3
_LONGEST_S = 0.2
_WAVE_GROWTH_BYTES = 32 * MIB


async def hang_ups(setting: Setting) -> Verdict:
    """Run it; see the module."""
    bounds, verdict = setting.bounds, Verdict("hang ups")
    client = setting.client()
    choose = random.Random(4)
    try:
        requests = setting.requests(client, _KIND, 16)
        probe = setting.requests(client, _PROBE_KIND, 1)[0]
        normal_s = await _normal(client, probe)
        capacity = await setting.capacity(client, requests, workers=8)
        memory, drains, probes = [rss_bytes(setting.server.pid)], [], []
        for _ in range(_NUM_WAVES):
            await asyncio.gather(
                *(
                    _hang_up(client, choose.choice(requests), choose)
                    for _ in range(bounds.num_clients)
                )
            )
            drain_s, answers = await _until_free(client, probe, normal_s, 3 * bounds.drain_s)
            drains.append(drain_s)
            probes += answers
            memory.append(rss_bytes(setting.server.pid))
        after = await client.send(requests[0])
    finally:
        client.close()
    slowest = None if None in drains else max(drain for drain in drains if drain is not None)
    # The first wave may fill caches and pools.
    growth = memory[-1] - memory[1]
    verdict.figures = {
        "clients": bounds.num_clients,
        "waves": _NUM_WAVES,
        "work_of_a_wave_s": bounds.num_clients / capacity,
        "probe_alone_s": normal_s,
        "probe_answers": statuses(probes),
        "memory_growth_first_wave_mib": (memory[1] - memory[0]) / MIB,
        "memory_growth_other_waves_mib": growth / MIB,
    }
    if slowest is not None:
        verdict.figures["free_after_s"] = slowest
    verdict.rule(
        f"the engine is free within {bounds.drain_s:g} s of the last client's hanging up",
        slowest is not None and slowest <= bounds.drain_s,
        drains,
    )
    others = [answer for answer in probes if answer.status not in (200, 429, 503)]
    verdict.rule(
        "a client that stays is answered with 200, 429 or 503", not others, statuses(probes)
    )
    verdict.rule("it answers afterwards", after.status == 200, after.status)
    verdict.rule(
        f"memory grows by at most {_WAVE_GROWTH_BYTES / MIB:.0f} MiB in the later waves",
        growth <= _WAVE_GROWTH_BYTES,
        f"{growth / MIB:.0f} MiB",
    )
    return verdict


async def _hang_up(client: Client, request: bytes, choose: random.Random) -> None:
    connection = await client.connect()
    if connection is None:
        return
    # One in four goes within its body.
    whole = choose.random() < 0.75
    connection.send_part(request if whole else request[: len(request) // 2])
    await asyncio.sleep(choose.uniform(0.0, _LONGEST_S))
    connection.abort()


async def _normal(client: Client, probe: bytes) -> float:
    seconds = []
    for _ in range(5):
        started_s = time.monotonic()
        await client.send(probe)
        seconds.append(time.monotonic() - started_s)
    latency = latency_of(seconds)
    assert latency is not None
    return latency.p50_s


async def _until_free(
    client: Client, probe: bytes, normal_s: float, most_s: float
) -> tuple[float | None, list[Answer]]:
    """Seconds until a small request is answered about as fast as on an idle server; None past `most_s`."""
    started_s = time.monotonic()
    answers: list[Answer] = []
    while time.monotonic() - started_s < most_s:
        sent_s = time.monotonic()
        answer = await client.send(probe)
        answers.append(answer)
        if answer.status == 200 and time.monotonic() - sent_s <= 3 * normal_s + 0.05:
            return time.monotonic() - started_s, answers
        await asyncio.sleep(0.02)
    return None, answers
