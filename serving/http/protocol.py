"""uvicorn's HTTP protocol with the bounds it lacks: on a request's time to arrive, its head, and connections.

Without them a client that sends one byte a minute holds a connection for ever. Knows bytes and timers; not
what is served.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024

# A connection that was made just before the server stopped listening may hold a request already.
_LAST_REQUEST_S = 1.0

# The application answers a slow body with 408 before its connection is closed.
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of the connections of one server.

    Attributes:
        upload_timeout_s: for a request's head, from the connection or its first byte; and for its body.
        max_connections: open at once; the next ones are closed.
    """

    upload_timeout_s: float
    max_connections: int


class BoundedProtocol(HttpToolsProtocol):
    """One connection; see `bounded_protocol`."""

    limits: ClassVar[ConnectionLimits]
    _upload: asyncio.TimerHandle | None = None
    _in_head: bool = True
    _num_head_bytes: int = 0
    _num_header_bytes: int = 0

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or close it when there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            transport.close()
            return
        self._await_rest(self.limits.upload_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget its timer."""
        self._end_upload()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head, which the parser would collect without end."""
        if self._in_head:
            # Body bytes that came with the head count too, so one piece may be over.
            if self._num_head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The head of the request is too large.")
                return
            self._num_head_bytes += len(data)
        if self._upload is None:
            self._await_rest(self.limits.upload_timeout_s)
        super().data_received(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count headers, trailers of a chunked body among them."""
        self._num_header_bytes += len(name) + len(value)
        if self._num_header_bytes > MAX_HEAD_BYTES:
            raise ValueError  # the parser makes it its own error, which is answered with 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The body's time begins."""
        self._in_head = False
        self._num_head_bytes = 0
        self._end_upload()
        self._await_rest(self.limits.upload_timeout_s + _ANSWER_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is here; its answer has its own deadline."""
        self._in_head = True
        self._num_header_bytes = 0
        self._end_upload()
        super().on_message_complete()

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


def bounded_protocol(limits: ConnectionLimits) -> type[BoundedProtocol]:
    """A protocol class for uvicorn's `http` setting."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits})
