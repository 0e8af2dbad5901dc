"""SIGTERM under load: nothing that was accepted is lost, and the process ends by itself.

A request counts as accepted if it was sent while the listener was open. Right at the moment when the
listener closes, a client cannot know whether its bytes were read; requests sent within `_RACE_S` of it
that got no byte of an answer are counted apart.
"""

import asyncio
import signal
import time
from collections.abc import Sequence

from benchmarks.faults.scenario import Setting, Verdict, add_latency, outcome_statuses
from benchmarks.load.arrivals import poisson
from benchmarks.load.client import Client, Outcome, open_loop
from benchmarks.load.connection import Failure

_KIND = "text-8"
_RACE_S = 0.25
_POLL_S = 0.05
_SHARE = 0.9
_BURST = 16
_SENT_S = 0.02


async def termination(setting: Setting) -> Verdict:
    """Run it; see the module."""
    bounds = setting.bounds
    client = setting.client(timeout_s=bounds.exit_s)
    try:
        requests = setting.requests(client, _KIND, 256)
        capacity = await setting.capacity(client, requests, workers=16)
        arrivals = poisson(_SHARE * capacity, bounds.seconds, seed=2)
        running = asyncio.create_task(open_loop(client, requests, arrivals))
        await asyncio.sleep(bounds.seconds / 3)
        # Whatever the load leaves on its way at this moment, these are.
        burst = [
            asyncio.create_task(client.send_due(request, None)) for request in requests[:_BURST]
        ]
        await asyncio.sleep(_SENT_S)
        term_s = time.monotonic()
        setting.server.signal(signal.SIGTERM)
        not_ready = asyncio.create_task(_until_not_ready(setting, term_s))
        ended_s = await _until_ended(setting, term_s + 2 * bounds.exit_s)
        outcomes = [*await running, *await asyncio.gather(*burst)]
        not_ready_s = await not_ready
    finally:
        client.close()
    return _judge(setting, outcomes, term_s=term_s, ended_s=ended_s, not_ready_s=not_ready_s)


def _judge(
    setting: Setting,
    outcomes: Sequence[Outcome],
    *,
    term_s: float,
    ended_s: float | None,
    not_ready_s: float | None,
) -> Verdict:
    verdict = Verdict("termination")
    refused = [o.sent_s for o in outcomes if o.answer.status is Failure.REFUSED]
    closed_s = min(refused, default=max(o.sent_s for o in outcomes) + _RACE_S)
    in_flight = [o for o in outcomes if o.sent_s < term_s <= o.done_s]
    accepted = [o for o in outcomes if term_s <= o.sent_s < closed_s]
    unanswered = [o for o in accepted if not isinstance(o.answer.status, int)]
    raced = [
        o
        for o in unanswered
        if o.answer.status is Failure.CLOSED and o.sent_s >= closed_s - _RACE_S
    ]
    verdict.figures = {
        "requests_before": sum(o.done_s < term_s for o in outcomes),
        "in_flight": len(in_flight),
        "in_flight_answers": outcome_statuses(in_flight),
        "sent_while_listening": len(accepted),
        "sent_while_listening_answers": outcome_statuses(accepted),
        "raced": len(raced),
        "refused": len(refused),
        "listening_after_s": closed_s - term_s,
    }
    if not_ready_s is not None:
        verdict.figures["not_ready_after_s"] = not_ready_s
    if ended_s is not None:
        verdict.figures["ended_after_s"] = ended_s - term_s
    add_latency(verdict, "in_flight", in_flight)
    verdict.rule(
        "requests on their way at SIGTERM are answered with 200",
        bool(in_flight) and all(o.ok for o in in_flight),
        outcome_statuses(in_flight),
    )
    verdict.rule(
        "requests sent until the listener closed are answered",
        len(unanswered) == len(raced),
        outcome_statuses(unanswered),
    )
    truncated = sum(o.answer.status is Failure.TRUNCATED for o in outcomes)
    verdict.rule("no answer is cut off", truncated == 0, truncated)
    verdict.rule(
        "it says that it is not ready, or listens no more", not_ready_s is not None, not_ready_s
    )
    bound = setting.bounds.exit_s
    verdict.rule(
        f"it ends within {bound:g} s",
        ended_s is not None and ended_s - term_s <= bound,
        None if ended_s is None else f"{ended_s - term_s:.1f} s",
    )
    status = setting.server.exit_status
    verdict.rule("its exit status is 0", status == 0, status)
    return verdict


async def _until_ended(setting: Setting, until_s: float) -> float | None:
    while time.monotonic() < until_s:
        if setting.server.exit_status is not None:
            return time.monotonic()
        await asyncio.sleep(_POLL_S)
    return None


async def _until_not_ready(setting: Setting, term_s: float) -> float | None:
    # On a connection of its own: the listener may be closed, and that is an answer too.
    client: Client = setting.client(timeout_s=1.0)
    try:
        while time.monotonic() < term_s + setting.bounds.exit_s:
            if not await setting.ready(client):
                return time.monotonic() - term_s
            await asyncio.sleep(_POLL_S)
    finally:
        client.close()
    return None
