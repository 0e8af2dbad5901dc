"""Five times as many requests as the server can answer.

It has to refuse what it cannot take, at once and in its own words, and answer what it took in time; its
memory has to stop growing.
"""

from benchmarks.faults.scenario import (
    MIB,
    Setting,
    Verdict,
    add_latency,
    outcome_statuses,
    watched_memory,
)
from benchmarks.load.arrivals import poisson
from benchmarks.load.client import open_loop
from benchmarks.load.report import latency_of

_KIND = "text-8"
_ALLOWED = {"200", "429", "503"}
_LATE_GROWTH_BYTES = 64 * MIB


async def overload(setting: Setting) -> Verdict:
    """Run it; see the module."""
    bounds, verdict = setting.bounds, Verdict("overload")
    client = setting.client()
    try:
        requests = setting.requests(client, _KIND, 256)
        capacity = await setting.capacity(client, requests, workers=16)
        rate = bounds.overload * capacity
        async with watched_memory(setting.server.pid) as memory:
            outcomes = await open_loop(client, requests, poisson(rate, bounds.seconds, seed=1))
        after = await client.send(requests[0])
    finally:
        client.close()
    answers = outcome_statuses(outcomes)
    last_s = max(outcome.done_s for outcome in outcomes)
    refused = [outcome for outcome in outcomes if outcome.answer.status in (429, 503)]
    without_hint = sum(outcome.answer.retry_after is None for outcome in refused)
    accepted = latency_of([outcome.latency_s for outcome in outcomes if outcome.ok])
    at_once = latency_of([outcome.latency_s for outcome in refused])
    lag = latency_of([outcome.sent_s - outcome.due_s for outcome in outcomes])
    verdict.figures = {
        "capacity_per_s": capacity,
        "rate_per_s": rate,
        "requests": len(outcomes),
        "answers": answers,
        "answered_per_s": answers.get("200", 0) / (last_s - outcomes[0].due_s),
        "memory_before_mib": memory.samples[0] / MIB,
        "memory_growth_mib": memory.growth_bytes / MIB,
        "memory_late_growth_mib": memory.late_growth_bytes / MIB,
        "send_lag_p99_s": 0.0 if lag is None else lag.p99_s,
        "refused_p99_s": 0.0 if at_once is None else at_once.p99_s,
    }
    add_latency(verdict, "accepted", outcomes)
    verdict.rule("answers are 200, 429 or 503", set(answers) <= _ALLOWED, answers)
    verdict.rule("what is refused says when to come back", without_hint == 0, without_hint)
    verdict.rule(
        f"memory grows by at most {bounds.growth_bytes / MIB:.0f} MiB",
        memory.growth_bytes <= bounds.growth_bytes,
        f"{memory.growth_bytes / MIB:.0f} MiB",
    )
    verdict.rule(
        f"memory stops growing (at most {_LATE_GROWTH_BYTES / MIB:.0f} MiB in the last third)",
        memory.late_growth_bytes <= _LATE_GROWTH_BYTES,
        f"{memory.late_growth_bytes / MIB:.0f} MiB",
    )
    verdict.rule(
        f"99 in 100 accepted requests are answered within the deadline of {bounds.deadline_s:g} s",
        accepted is not None and accepted.p99_s <= bounds.deadline_s,
        None if accepted is None else f"{accepted.p99_s:.2f} s",
    )
    verdict.rule("it answers afterwards", after.status == 200, after.status)
    return verdict
