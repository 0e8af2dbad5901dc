"""Bodies in memory: how large one may be, how large all together, and how long one may take to come.

Knows ASGI messages; not what a body says.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from starlette.requests import Request

from serving.http.errors import HttpError

_RETRY_S = 2.0
_ALLOWED_TYPES = ("application/json", "text/json")


class Bodies:
    """Counts the bytes of all bodies that are in memory, of requests and of answers."""

    def __init__(self, *, max_body_bytes: int, max_total_bytes: int, timeout_s: float) -> None:
        self._max_body_bytes = max_body_bytes
        self._max_total_bytes = max_total_bytes
        self._timeout_s = timeout_s
        self.total_bytes: int = 0
        """In memory now."""

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body; it counts until the block is left.

        Raises:
            HttpError: 408, 413, 415, or 503 when too much is in memory already.
            ClientDisconnect: the client hung up before its last byte.
        """
        _check_kind(request)
        declared = _declared_bytes(request)
        if declared is not None and declared > self._max_body_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        num_bytes = 0
        try:
            await self._receive(request, parts)
            body = b"".join(parts)
            num_bytes = len(body)
            parts.clear()  # or it would be there twice
            yield body
        finally:
            self.total_bytes -= num_bytes + sum(map(len, parts))

    @contextmanager
    def share(self) -> "Iterator[Share]":
        """Count what a request brings into memory beside its body, until the block is left."""
        share = Share(self)
        try:
            yield share
        finally:
            self.total_bytes -= share.num_bytes

    def take(self, num_bytes: int, num_before: int) -> None:
        """Count `num_bytes` more of a request that brought `num_before` already; see `Share.take`."""
        if num_before + num_bytes > self._max_total_bytes:
            raise HttpError(
                413,
                "REQUEST_TOO_LARGE",
                f"The files behind the URLs, or the pages of the PDF, have more than "
                f"{self._max_total_bytes} bytes together. Send fewer at once.",
            )
        self.total_bytes += num_bytes
        if self.total_bytes > self._max_total_bytes and self.total_bytes > num_before + num_bytes:
            self.total_bytes -= num_bytes
            raise _full()

    @contextmanager
    def hold(self, num_bytes: int) -> Iterator[None]:
        """Count an answer while it is being sent."""
        self.total_bytes += num_bytes
        try:
            yield
        finally:
            self.total_bytes -= num_bytes

    async def _receive(self, request: Request, parts: list[bytes]) -> None:
        num_bytes = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                async for part in request.stream():
                    num_bytes += len(part)
                    self.total_bytes += len(part)
                    parts.append(part)
                    self._check(num_bytes)
        except TimeoutError as error:
            raise HttpError(
                408,
                "REQUEST_TIMEOUT",
                f"The body did not arrive within {self._timeout_s:g} s.",
                headers={"Connection": "close"},
            ) from error

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._max_body_bytes:
            raise self._too_large()
        # One body alone is always taken, whatever the bounds say of each other.
        if self.total_bytes > self._max_total_bytes and self.total_bytes > num_bytes:
            raise _full()

    def _too_large(self) -> HttpError:
        return HttpError(
            413,
            "REQUEST_TOO_LARGE",
            f"A request body has at most {self._max_body_bytes} bytes. Send fewer inputs at once.",
            headers={"Connection": "close"},
        )


class Share:
    """Bytes that one request holds beside its body: fetched files, rendered pages."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.num_bytes: int = 0

    def take(self, num_bytes: int) -> None:
        """Count `num_bytes` more.

        Raises:
            HttpError: 413 when the request holds too much, 503 when all requests together do.
        """
        self._bodies.take(num_bytes, self.num_bytes)
        self.num_bytes += num_bytes


def _full() -> HttpError:
    return HttpError(
        503,
        "SERVICE_UNAVAILABLE",
        "The server holds as many bytes of requests as it may. Try again later.",
        retry_after_s=_RETRY_S,
        reason="BODIES_FULL",
    )


def _check_kind(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind not in _ALLOWED_TYPES and not kind.endswith("+json"):
        raise HttpError(
            415, "UNSUPPORTED_MEDIA_TYPE", "The body must be JSON: Content-Type: application/json."
        )
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        # What a compressed body unpacks to cannot be bounded by its length.
        raise HttpError(
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "Compressed bodies are not taken. Send the JSON as it is.",
        )


def _declared_bytes(request: Request) -> int | None:
    value = request.headers.get("content-length")
    return int(value) if value is not None and value.isascii() and value.isdigit() else None
