"""Sends requests to a server at the times they are due, or as fast as it answers, and notes when each was answered.

In the open loop, a request is sent when it is due whether or not earlier ones were answered, and its
latency counts from when it was due. A server that stalls, or a client that falls behind, shows up in
the latencies instead of thinning out the load (coordinated omission). It knows bytes, not embeddings.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.load.connection import Answer, Connection, Failure


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request; times are those of `time.monotonic`, as an event loop's may be of whole milliseconds.

    Attributes:
        due_s: when it was to be sent.
        sent_s: when it was sent.
        done_s: when its answer was whole, or it failed.
        answer: what came back.
    """

    due_s: float
    sent_s: float
    done_s: float
    answer: Answer

    @property
    def latency_s(self) -> float:
        """Time from when it was due."""
        return self.done_s - self.due_s

    @property
    def ok(self) -> bool:
        """Whether it was answered with 200."""
        return self.answer.status == 200


class Client:
    """Connections to one server, kept alive and opened as needed; `max_connections` at most."""

    def __init__(
        self, host: str, port: int, *, max_connections: int = 4096, timeout_s: float = 60.0
    ) -> None:
        self.host = host
        self.port = port
        self.timeout_s = timeout_s
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._places = asyncio.Semaphore(max_connections)

    def frame(self, path: str, body: bytes, *, key: str | None = None) -> bytes:
        """A whole POST request."""
        head = [
            f"POST {path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "Content-Type: application/json",
            "Accept-Encoding: identity",
            f"Content-Length: {len(body)}",
        ]
        if key is not None:
            head.append(f"Authorization: Bearer {key}")
        return "\r\n".join([*head, "", ""]).encode("latin-1") + body

    def frame_get(self, path: str, *, key: str | None = None) -> bytes:
        """A whole GET request."""
        head = [f"GET {path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        if key is not None:
            head.append(f"Authorization: Bearer {key}")
        return "\r\n".join([*head, "", ""]).encode("latin-1")

    async def send(self, request: bytes, *, keep_body: bool = False) -> Answer:
        """Send a request on a connection of its own; failures are answers too."""
        return (await self.send_due(request, None, keep_body=keep_body)).answer

    async def send_due(
        self, request: bytes, due_s: float | None, *, keep_body: bool = False
    ) -> Outcome:
        """Send a request that was due at `due_s`, None being now."""
        loop = asyncio.get_running_loop()
        due_s = time.monotonic() if due_s is None else due_s
        async with self._places:
            connection = await self._connection()
            sent_s = time.monotonic()
            if connection is None:
                return Outcome(due_s, sent_s, sent_s, Answer(Failure.REFUSED))
            waiting = connection.send(request, keep_body=keep_body)
            timer = loop.call_later(self.timeout_s, connection.abort, Failure.TIMEOUT)
            try:
                answer = await waiting
            finally:
                timer.cancel()
                self._take_back(connection)
            return Outcome(due_s, sent_s, time.monotonic(), answer)

    async def connect(self) -> Connection | None:
        """A new connection of which the caller takes care, or None where none is made."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeout_s):
                _, connection = await loop.create_connection(Connection, self.host, self.port)
        except (OSError, TimeoutError):
            return None
        return connection

    def close(self) -> None:
        """Close every connection."""
        for connection in self._all:
            connection.abort()
        self._all.clear()
        self._idle.clear()

    async def _connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
            self._all.discard(connection)
        made = await self.connect()
        if made is not None:
            self._all.add(made)
        return made

    def _take_back(self, connection: Connection) -> None:
        if connection.reusable:
            self._idle.append(connection)
        else:
            # A request that was cancelled, or a server that said it closes.
            connection.abort()
            self._all.discard(connection)


async def open_loop(
    client: Client, requests: Sequence[bytes], arrivals: Sequence[float]
) -> list[Outcome]:
    """Send one request at each of `arrivals`, going round `requests`, and wait for all answers."""
    started = time.monotonic() + 0.02
    tasks: list[asyncio.Task[Outcome]] = []
    for number, at in enumerate(arrivals):
        wait_s = started + at - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        request = requests[number % len(requests)]
        tasks.append(asyncio.create_task(client.send_due(request, started + at)))
    return list(await asyncio.gather(*tasks))


async def saturate(
    client: Client,
    requests: Sequence[bytes],
    num_workers: int,
    duration_s: float,
    *,
    warm_s: float = 0.0,
    on_start: Callable[[], None] = lambda: None,
    on_end: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Keep `num_workers` requests on their way, and return those that were done within `duration_s`.

    Args:
        client: where to send.
        requests: gone round.
        num_workers: requests on their way at any time.
        duration_s: counted time, after `warm_s`.
        warm_s: time that is not counted.
        on_start: called when the counted time begins.
        on_end: called when it ends.
    """
    counted_from = time.monotonic() + warm_s
    until = counted_from + duration_s
    outcomes: list[Outcome] = []
    numbers = iter(range(2**62))

    async def work() -> None:
        while time.monotonic() < until:
            outcome = await client.send_due(requests[next(numbers) % len(requests)], None)
            outcomes.append(outcome)
            if not isinstance(outcome.answer.status, int):
                # A dead server refuses at once; do not spin on it.
                await asyncio.sleep(0.05)

    workers = [asyncio.create_task(work()) for _ in range(num_workers)]
    await asyncio.sleep(counted_from - time.monotonic())
    on_start()
    await asyncio.sleep(until - time.monotonic())
    on_end()
    await asyncio.gather(*workers)
    return [outcome for outcome in outcomes if counted_from <= outcome.done_s < until]
