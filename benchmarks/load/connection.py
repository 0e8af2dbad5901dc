"""One HTTP/1.1 connection of the load generator: bytes out, one answer back.

The load generator shares the machine with the server it measures, so it has to be cheap: requests are
bytes made beforehand, and httptools (the parser of uvicorn) reads the answers. It knows no URLs,
redirects, compression or TLS.
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import httptools


class Failure(StrEnum):
    """Why a request has no answer."""

    REFUSED = "refused"
    """No connection was made."""

    CLOSED = "closed"
    """The connection ended before a byte of an answer."""

    TRUNCATED = "truncated"
    """The connection ended, or broke the protocol, within an answer."""

    TIMEOUT = "timeout"
    """No whole answer came in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: HTTP status, or why there is none.
        num_bytes: bytes of the body.
        body: the body where it was asked for, otherwise None.
        retry_after: the header of that name, or None.
    """

    status: int | Failure
    num_bytes: int = 0
    body: bytes | None = None
    retry_after: str | None = None


class Connection(asyncio.Protocol):
    """Sends one request at a time and reads its answer."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: asyncio.Future[Answer] | None = None
        self._keep_body = False
        self._started = False
        self._closing = False
        self._num_bytes = 0
        self._parts: list[bytes] = []
        self._retry_after: str | None = None

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent."""
        return (
            self._transport is not None
            and not self._transport.is_closing()
            and self._waiting is None
            and not self._closing
        )

    def send(self, request: bytes, *, keep_body: bool = False) -> "asyncio.Future[Answer]":
        """Send a whole request; the future never raises."""
        assert self._waiting is None
        self._keep_body = keep_body
        self._waiting = asyncio.get_running_loop().create_future()
        if self._transport is None:
            waiting = self._waiting
            self._finish(Answer(Failure.CLOSED))
            return waiting
        self._transport.write(request)
        return self._waiting

    def send_part(self, part: bytes) -> None:
        """Send bytes that are not a whole request."""
        assert self._transport is not None
        self._transport.write(part)

    def abort(self, failure: Failure = Failure.CLOSED) -> None:
        """Close at once, as a client that hangs up; a request on its way ends with `failure`."""
        if self._transport is not None:
            self._transport.abort()
        self._finish(Answer(failure))

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed it."""
        return self._transport is not None and not self._transport.is_closing()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        # uvloop's transports are none by class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._started = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort(Failure.TRUNCATED)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._transport = None
        self._finish(Answer(Failure.TRUNCATED if self._started else Failure.CLOSED))

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        if name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:  # noqa: D102
        self._num_bytes += len(part)
        if self._keep_body:
            self._parts.append(part)

    def on_message_complete(self) -> None:  # noqa: D102
        body = b"".join(self._parts) if self._keep_body else None
        answer = Answer(self._parser.get_status_code(), self._num_bytes, body, self._retry_after)
        self._closing = not self._parser.should_keep_alive()
        self._finish(answer)
        if self._closing and self._transport is not None:
            self._transport.close()

    def _finish(self, answer: Answer) -> None:
        waiting, self._waiting = self._waiting, None
        self._started = False
        self._num_bytes = 0
        self._parts = []
        self._retry_after = None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)
