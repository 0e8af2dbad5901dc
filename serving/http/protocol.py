"""uvicorn's HTTP protocol with the bounds it lacks: on heads, on connections, on slow senders and readers.

Without them a client that sends one byte a minute, or reads none, holds a connection and its answer for
ever. Wishes to speak HTTP/2, which cost a request its body in uvicorn, are passed over. Knows bytes and
timers; not what is served.
"""

import asyncio
import logging
import uuid
from dataclasses import dataclass
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.http.errors import HttpError, body_of

_log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024

# A connection that was made just before the server stopped listening may hold a request already.
_LAST_REQUEST_S = 1.0

# The application answers a slow body with 408 before its connection is closed.
_ANSWER_S = 5.0

# Requests that wait on their connection for the answer to the one before. Hardly any client sends a second
# one; without a bound every answer lets some thousands in.
MAX_PIPELINED = 32

_NOT_HTTP = "This is not a valid HTTP request."
_UPGRADES = (b"upgrade", b"http2-settings")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of the connections of one server.

    Attributes:
        upload_timeout_s: for a request's head, from the connection or its first byte; for its body; and
            for a client to read anything while an answer waits for it.
        max_connections: open at once; the next ones are closed.
    """

    upload_timeout_s: float
    max_connections: int


class BoundedProtocol(HttpToolsProtocol):
    """One connection; see `bounded_protocol`."""

    limits: ClassVar[ConnectionLimits]
    _upload: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _in_head: bool = True
    _num_head_bytes: int = 0
    _num_header_bytes: int = 0
    _cycles: tuple[RequestResponseCycle, ...] = ()

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or close it when there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            transport.close()
            return
        self._await_rest(self.limits.upload_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget its timers, and tell its requests, of which uvicorn tells the last one alone."""
        self._end_upload()
        self._end_unread()
        for cycle in self._cycles:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head, which the parser would collect without end."""
        if self._in_head:
            # Body bytes that came with the head count too, so one piece may be over.
            if self._num_head_bytes > MAX_HEAD_BYTES:
                self.send_400_response(f"The head of a request has at most {MAX_HEAD_BYTES} bytes.")
                return
            self._num_head_bytes += len(data)
        if self._upload is None:
            self._await_rest(self.limits.upload_timeout_s)
        self._unset_keepalive_if_required()
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.parser.get_method() == b"CONNECT":
                self.send_400_response(_NOT_HTTP)
            else:
                self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response(_NOT_HTTP)

    def _stay(self, rest: bytes) -> None:
        """Read a request again that wishes for another protocol, without the wish.

        The parser stops after such a head, and the body would be lost: Java's own client sends one with
        its first request to any http URL.
        """
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.headers:
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                value = b", ".join(token for token in tokens if token.lower() not in _UPGRADES)
            if name not in _UPGRADES:
                head += [name, b": ", value, b"\r\n"]
        self._num_header_bytes = 0
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"".join([*head, b"\r\n", rest]))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count headers, trailers of a chunked body among them."""
        self._num_header_bytes += len(name) + len(value)
        if self._num_header_bytes > MAX_HEAD_BYTES:
            raise ValueError  # the parser makes it its own error, which is answered with 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The body's time begins."""
        if self.parser.should_upgrade():
            return  # this head is read again without its wish
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError
        self._in_head = False
        self._num_head_bytes = 0
        self._end_upload()
        self._await_rest(self.limits.upload_timeout_s + _ANSWER_S)
        super().on_headers_complete()
        unanswered = (cycle for cycle in self._cycles if not cycle.response_complete)
        self._cycles = (*unanswered, self.cycle)

    def on_message_complete(self) -> None:
        """The request is here; its answer has its own deadline."""
        if self.parser.should_upgrade():
            return
        self._in_head = True
        self._num_header_bytes = 0
        self._end_upload()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for this answer to be read."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._await_reader()

    def pause_writing(self) -> None:
        """The client reads more slowly than the answer comes, or not at all."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._end_unread()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also when the last answer was never read."""
        super().timeout_keep_alive_handler()
        self._await_reader()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP in the shape of any other refusal, and hang up."""
        request_id = uuid.uuid4().hex
        _log.warning("Refused: %s", msg, extra={"request_id": request_id})
        body = body_of(HttpError(400, "BAD_REQUEST", msg), request_id)
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\n"
            "x-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
        self._await_reader()

    def shutdown(self) -> None:
        """Close when idle; a connection that has not asked anything yet gets the time to."""
        if self.cycle is None:
            self.loop.call_later(_LAST_REQUEST_S, super().shutdown)
        else:
            super().shutdown()

    def _await_rest(self, timeout_s: float) -> None:
        self._upload = self.loop.call_later(timeout_s, self._too_slow)

    def _end_upload(self) -> None:
        if self._upload is not None:
            self._upload.cancel()
            self._upload = None

    def _too_slow(self) -> None:
        self._upload = None
        if not self.transport.is_closing():
            self.transport.close()
            self._await_reader()

    def _await_reader(self) -> None:
        """Closing waits until everything was read; this ends the wait."""
        if self._unread is None:
            self._unread = self.loop.call_later(self.limits.upload_timeout_s, self.transport.abort)

    def _end_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def bounded_protocol(limits: ConnectionLimits) -> type[BoundedProtocol]:
    """A protocol class for uvicorn's `http` setting."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits})
