"""Bodies in memory: how large one may be, how large all together, and how long one may take to come.

Knows ASGI messages; not what a body says.
"""

import asyncio
from typing import Self

from starlette.requests import Request

from serving.http.errors import HttpError

_RETRY_S = 2.0
_ALLOWED_TYPES = ("application/json", "text/json")


class Bodies:
    """Counts the bytes of all bodies that are in memory, of requests and of answers.

    While there are too many, a caller that has less than its share of them is served on, up to twice as many: answers
    that one caller does not read are not the others' business.
    """

    def __init__(self, *, max_body_bytes: int, max_total_bytes: int, timeout_s: float) -> None:
        self._max_body_bytes = max_body_bytes
        self._max_total_bytes = max_total_bytes
        self._timeout_s = timeout_s
        self.total_bytes: int = 0
        """In memory now."""
        self._by_caller: dict[str, int] = {}

    async def read(self, request: Request, share: "Share") -> bytes:
        """The whole body, counted in `share`.

        Raises:
            HttpError: 408, 413, 415, or 503 when too much is in memory already.
            ClientDisconnect: the client hung up before its last byte.
        """
        _check_kind(request)
        declared = _declared_bytes(request)
        if declared is not None and declared > self._max_body_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        await self._receive(request, parts, share)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def share(self, caller: str) -> "Share":
        """Counts what a request of `caller` brings into memory, until its block is left."""
        return Share(self, caller)

    def count(self, caller: str, num_bytes: int) -> None:
        """Count `num_bytes` more, or fewer, as `caller`'s."""
        self.total_bytes += num_bytes
        counted = self._by_caller.get(caller, 0) + num_bytes
        if counted:
            self._by_caller[caller] = counted
        else:
            self._by_caller.pop(caller, None)

    def check(self, caller: str, num_bytes: int) -> None:
        """Refuse a request of `caller`, of which `num_bytes` are counted, if it is one too many.

        Raises:
            HttpError: 503.
        """
        # One alone is always taken, whatever the bounds say of each other.
        if self.total_bytes <= self._max_total_bytes or self.total_bytes <= num_bytes:
            return
        # What it would be if everybody had as much in memory as this caller.
        as_much_each = self._by_caller.get(caller, 0) * len(self._by_caller)
        if as_much_each > self._max_total_bytes or self.total_bytes > 2 * self._max_total_bytes:
            raise _full()

    def check_files(self, num_bytes: int) -> None:
        """Refuse files of one request that are more than there may be of all.

        Raises:
            HttpError: 413.
        """
        if num_bytes > self._max_total_bytes:
            raise HttpError(
                413,
                "REQUEST_TOO_LARGE",
                f"The files behind the URLs, or the pages of the PDF, have more than "
                f"{self._max_total_bytes} bytes together. Send fewer at once.",
            )

    async def _receive(self, request: Request, parts: list[bytes], share: "Share") -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                async for part in request.stream():
                    parts.append(part)
                    share.count(len(part))
                    if share.num_bytes > self._max_body_bytes:
                        raise self._too_large()
        except TimeoutError as error:
            raise HttpError(
                408,
                "REQUEST_TIMEOUT",
                f"The body did not arrive within {self._timeout_s:g} s.",
                headers={"Connection": "close"},
            ) from error

    def _too_large(self) -> HttpError:
        return HttpError(
            413,
            "REQUEST_TOO_LARGE",
            f"A request body has at most {self._max_body_bytes} bytes. Send fewer inputs at once.",
            headers={"Connection": "close"},
        )


class Share:
    """Bytes that one request holds, until the block is left: a body, fetched files and rendered pages, or an answer."""

    __slots__ = ("_bodies", "_caller", "num_bytes")

    def __init__(self, bodies: Bodies, caller: str) -> None:
        self._bodies = bodies
        self._caller = caller
        self.num_bytes: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bodies.count(self._caller, -self.num_bytes)
        self.num_bytes = 0

    def hold(self, num_bytes: int) -> None:
        """Count `num_bytes` that are kept in any case."""
        self.num_bytes += num_bytes
        self._bodies.count(self._caller, num_bytes)

    def count(self, num_bytes: int) -> None:
        """Count `num_bytes` that are here already.

        Raises:
            HttpError: 503 when all requests together hold too much.
        """
        self.hold(num_bytes)
        self._bodies.check(self._caller, self.num_bytes)

    def take(self, num_bytes: int) -> None:
        """Count `num_bytes` of files more.

        Raises:
            HttpError: 413 when the request holds too much, 503 when all requests together do.
        """
        self._bodies.check_files(self.num_bytes + num_bytes)
        self.count(num_bytes)


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
