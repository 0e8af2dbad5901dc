"""What every scenario is given, what it hands back, and what they all do: prepare, count, watch memory.

A scenario drives a running server from outside and judges it by rules. It knows the wire, the health
route, signals and the names of processes.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from benchmarks.load.client import Client, Outcome, saturate
from benchmarks.load.connection import Answer
from benchmarks.load.cpu import rss_bytes
from benchmarks.load.report import latency_of
from benchmarks.load.requests import KINDS, Dialect, Inputs, body
from benchmarks.load.servers import HOST, Server

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that has to hold.

    Attributes:
        text: what has to hold, as a sentence.
        holds: whether it does.
        got: what was seen.
    """

    text: str
    holds: bool
    got: str


@dataclass(slots=True)
class Verdict:
    """What a scenario saw, in its own figures, and whether its rules hold."""

    scenario: str
    figures: dict[str, float | dict[str, int]] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all rules hold."""
        return all(rule.holds for rule in self.rules)

    def rule(self, text: str, holds: bool, got: object) -> None:
        """Add a rule."""
        self.rules.append(Rule(text, holds, str(got)))


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long scenarios last, and what is still allowed.

    Attributes:
        seconds: of load, in every scenario.
        deadline_s: a request's deadline in the server; no answer with 200 may come later.
        upload_timeout_s: the server's; an unfinished request is cut off after it.
        slack_s: how much later than that is still in time.
        exit_s: from SIGTERM to the end of the process.
        notice_s: from an engine's death to the first answer or health check that says so.
        recover_s: from an engine's death to the next vectors.
        drain_s: from the last of many clients' hanging up to an engine that is free.
        growth_bytes: of the server's memory under any load.
        num_clients: that hang up, in each wave.
        num_slow: connections that send slowly or stop.
        overload: arrivals over capacity.
        difference: 1 - cos up to which a vector is right.
    """

    seconds: float = 60.0
    deadline_s: float = 60.0
    upload_timeout_s: float = 10.0
    slack_s: float = 5.0
    exit_s: float = 90.0
    notice_s: float = 10.0
    recover_s: float = 300.0
    drain_s: float = 10.0
    growth_bytes: int = 768 * MIB
    num_clients: int = 1000
    num_slow: int = 400
    overload: float = 5.0
    difference: float = 1e-4


class Setting:
    """A running server, requests made for it, and the bounds."""

    def __init__(self, server: Server, inputs: Inputs, bounds: Bounds, *, key: str | None = None):
        self.server = server
        self.bounds = bounds
        self.key = key
        self._inputs = inputs

    @property
    def dialect(self) -> Dialect:
        """How the server is asked."""
        return self.server.contender.dialect

    def client(self, *, timeout_s: float | None = None) -> Client:
        """A client that waits longer than the server's deadline."""
        timeout_s = 2 * self.bounds.deadline_s if timeout_s is None else timeout_s
        return Client(HOST, self.server.port, timeout_s=timeout_s)

    def requests(self, client: Client, kind: str, num_requests: int) -> list[bytes]:
        """Whole requests, all different."""
        made = []
        for items in self._inputs.draw(KINDS[kind], num_requests):
            asked = body(self.dialect, KINDS[kind], items)
            made.append(client.frame(asked.path, asked.data, key=self.key))
        return made

    async def ready(self, client: Client) -> bool:
        """Whether the server says that it is ready."""
        answer = await client.send(client.frame_get(self.server.contender.ready_path))
        return answer.status == 200

    async def capacity(self, client: Client, requests: Sequence[bytes], workers: int) -> float:
        """Requests a second that it answers with 200 at most, measured for a sixth of the duration."""
        duration_s = max(0.3, self.bounds.seconds / 6)
        outcomes = await saturate(client, requests, workers, duration_s, warm_s=duration_s / 3)
        return max(1.0, sum(outcome.ok for outcome in outcomes) / duration_s)


class Memory:
    """Resident memory of a server while something happens, sampled."""

    def __init__(self) -> None:
        self.samples: list[int] = []

    @property
    def growth_bytes(self) -> int:
        """The most over the first sample."""
        return max(self.samples) - self.samples[0]

    @property
    def late_growth_bytes(self) -> int:
        """The most of the last third over the most of the third before it: near nothing where it is bounded."""
        third = max(1, len(self.samples) // 3)
        return max(self.samples[-third:]) - max(self.samples[-2 * third : -third] or [0])


@asynccontextmanager
async def watched_memory(pid: int, *, every_s: float = 0.5) -> AsyncIterator[Memory]:
    """Sample a server's memory within the block, and once at either end."""
    memory = Memory()

    def look() -> None:
        memory.samples.append(rss_bytes(pid))

    async def watch() -> None:
        while True:
            await asyncio.sleep(every_s)
            look()

    look()
    task = asyncio.create_task(watch())
    try:
        yield memory
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        look()


def statuses(answers: Iterable[Answer]) -> dict[str, int]:
    """How many of each status, or of each reason for having none."""
    return dict(sorted(Counter(str(answer.status) for answer in answers).items()))


def outcome_statuses(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """The same of outcomes."""
    return statuses(outcome.answer for outcome in outcomes)


def add_latency(verdict: Verdict, prefix: str, outcomes: Sequence[Outcome]) -> None:
    """Percentiles of answers with 200 among the figures."""
    latency = latency_of([outcome.latency_s for outcome in outcomes if outcome.ok])
    if latency is not None:
        verdict.figures |= {
            f"{prefix}_p50_s": latency.p50_s,
            f"{prefix}_p99_s": latency.p99_s,
            f"{prefix}_max_s": latency.max_s,
        }
