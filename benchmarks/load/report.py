"""What was measured, summed up: latencies, rates and processor time, as rows, tables and one line of JSON."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.card import Card
from benchmarks.load.client import Outcome
from benchmarks.load.cpu import CpuSeconds

DEFINITIONS = {
    "latency": "from when a request was due (open loop) or sent (saturation) to its last byte; of answers with 200",
    "cpu_api": "processor time of every process of the server that is not vLLM's engine, user and system",
    "cpu_over_offline": "processor time of the whole server less that of the engine's processes on the same prompts, tokenised, in one offline call",
    "client_share": "processor time of the load generator over the duration; 1 is a whole core",
    "send_lag": "how much later than due a request was sent; large values are the client's fault",
}


@dataclass(frozen=True, slots=True)
class Latency:
    """Nearest-rank percentiles, in seconds."""

    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """One server on one kind of request in one round.

    Attributes:
        mode: `saturation` (as many as it answers) or `open` (at a given rate).
        rate_per_s: requests due per second, None in saturation.
        duration_s: time counted; in the open loop until the last answer.
        answers: how many of each status, or of each reason for having none.
        latency: of answers with 200; None where there was none.
        cpu: of the server's processes within `duration_s`, None where it is not this machine's.
        client_cpu_s: of the load generator within `duration_s`.
        send_lag_p99_s: see `DEFINITIONS`.
    """

    contender: str
    kind: str
    mode: str
    round: int
    rate_per_s: float | None
    duration_s: float
    num_items: int
    num_tokens: int
    answers: dict[str, int]
    latency: Latency | None
    requests_per_s: float
    items_per_s: float
    tokens_per_s: float
    cpu: CpuSeconds | None
    client_cpu_s: float
    send_lag_p99_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the rounds of one server, kind and mode; processor time in milliseconds an item."""

    contender: str
    kind: str
    mode: str
    rounds: int
    rate_per_s: float | None
    errors: dict[str, int]
    latency: Latency | None
    requests_per_s: float
    items_per_s: float
    tokens_per_s: float
    cpu_ms: float | None
    cpu_api_ms: float | None
    cpu_over_offline_ms: float | None
    client_share: float
    send_lag_p99_s: float


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    card: Card
    checkpoint: str
    options: dict[str, str]
    definitions: dict[str, str]
    difference: dict[str, float]
    idle_cpu: dict[str, float]
    offline_cpu_ms: dict[str, float]
    summaries: list[Summary]
    rows: list[Row]


def latency_of(seconds: Sequence[float]) -> Latency | None:
    """Percentiles: the least value that so many in a hundred do not exceed."""
    if not seconds:
        return None
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99], method="inverted_cdf")
    return Latency(float(p50), float(p95), float(p99), float(max(seconds)))


def make_row(
    outcomes: Sequence[Outcome],
    *,
    contender: str,
    kind: str,
    mode: str,
    round_number: int,
    rate_per_s: float | None,
    duration_s: float,
    items_per_request: int,
    tokens_per_request: int,
    cpu: CpuSeconds | None,
    client_cpu_s: float,
) -> Row:
    """Sum up one server on one kind of request."""
    answers = Counter(str(outcome.answer.status) for outcome in outcomes)
    ok = answers.get("200", 0)
    lags = [outcome.sent_s - outcome.due_s for outcome in outcomes]
    lag = latency_of(lags)
    return Row(
        contender=contender,
        kind=kind,
        mode=mode,
        round=round_number,
        rate_per_s=rate_per_s,
        duration_s=duration_s,
        num_items=ok * items_per_request,
        num_tokens=ok * tokens_per_request,
        answers=dict(answers),
        latency=latency_of([outcome.latency_s for outcome in outcomes if outcome.ok]),
        requests_per_s=ok / duration_s,
        items_per_s=ok * items_per_request / duration_s,
        tokens_per_s=ok * tokens_per_request / duration_s,
        cpu=cpu,
        client_cpu_s=client_cpu_s,
        send_lag_p99_s=0.0 if lag is None else lag.p99_s,
    )


def summarise(rows: Sequence[Row], offline_cpu_ms: dict[str, float]) -> list[Summary]:
    """Medians over rounds, in the order of the first row of each server, kind and mode."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.contender, row.kind, row.mode), []).append(row)
    return [_summary(group, offline_cpu_ms) for group in groups.values()]


def _summary(rows: Sequence[Row], offline_cpu_ms: dict[str, float]) -> Summary:
    first = rows[0]
    errors: Counter[str] = Counter()
    for row in rows:
        errors.update({name: n for name, n in row.answers.items() if name != "200"})
    latencies = [row.latency for row in rows if row.latency is not None]
    measured = [(row.cpu, row.num_items) for row in rows if row.cpu is not None and row.num_items]
    total = _median([1e3 * cpu.total / items for cpu, items in measured])
    offline = offline_cpu_ms.get(first.kind)
    return Summary(
        contender=first.contender,
        kind=first.kind,
        mode=first.mode,
        rounds=len(rows),
        rate_per_s=first.rate_per_s,
        errors=dict(errors),
        latency=_median_latency(latencies),
        requests_per_s=statistics.median(row.requests_per_s for row in rows),
        items_per_s=statistics.median(row.items_per_s for row in rows),
        tokens_per_s=statistics.median(row.tokens_per_s for row in rows),
        cpu_ms=total,
        cpu_api_ms=_median([1e3 * cpu.api / items for cpu, items in measured]),
        cpu_over_offline_ms=None if total is None or offline is None else total - offline,
        client_share=statistics.median(row.client_cpu_s / row.duration_s for row in rows),
        send_lag_p99_s=statistics.median(row.send_lag_p99_s for row in rows),
    )


def format_table(summaries: Sequence[Summary], against: str) -> str:
    """A table in Markdown; ratios are to the contender `against`, where it has the same row."""
    heads = ["kind", "load", "server", "items/s", "x", "p50 ms", "p95 ms", "p99 ms", "max ms"]
    heads += ["CPU ms/item", "x", "API", "over offline", "errors", "client"]
    peers = {(row.kind, row.mode): row for row in summaries if row.contender == against}
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in sorted(summaries, key=lambda row: (row.kind, row.mode)):
        peer = peers.get((row.kind, row.mode))
        lines.append("| " + " | ".join(_cells(row, peer)) + " |")
    return "\n".join(lines)


def _cells(row: Summary, peer: Summary | None) -> list[str]:
    load = "most" if row.rate_per_s is None else f"{row.rate_per_s:.3g}/s"
    latency = row.latency
    times = (
        ["-"] * 4
        if latency is None
        else [f"{1e3 * value:.1f}" for value in asdict(latency).values()]
    )
    errors = ", ".join(f"{n} x {name}" for name, n in row.errors.items()) or "0"
    return [
        *[row.kind, load, row.contender, f"{row.items_per_s:.1f}"],
        _ratio(row.items_per_s, peer.items_per_s if peer else None),
        *times,
        _number(row.cpu_ms),
        _ratio(row.cpu_ms, peer.cpu_ms if peer else None),
        *[_number(value) for value in (row.cpu_api_ms, row.cpu_over_offline_ms)],
        errors,
        f"{row.client_share:.0%}",
    ]


def _ratio(value: float | None, to: float | None) -> str:
    return "-" if value is None or not to else f"{value / to:.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def to_json(result: Result) -> str:
    """One line."""
    return json.dumps(asdict(result))


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _median_latency(latencies: Sequence[Latency]) -> Latency | None:
    if not latencies:
        return None
    return Latency(
        p50_s=statistics.median(item.p50_s for item in latencies),
        p95_s=statistics.median(item.p95_s for item in latencies),
        p99_s=statistics.median(item.p99_s for item in latencies),
        max_s=max(item.max_s for item in latencies),
    )
