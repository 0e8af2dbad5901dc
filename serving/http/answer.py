"""A finished answer on its way to the client: counted while it is in memory, dropped when nobody reads it."""

import asyncio
from collections.abc import Iterable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.http.body import Bodies
from serving.http.edge import ClientGoneError

JSON = "application/json"


class Answer(Response):
    """A whole body that is sent within a time.

    Args:
        body: all of it.
        media_type: of the body.
        headers: further headers.
        bodies: counts the body until it is sent.
        timeout_s: a client that has not read it by then is taken for gone.
    """

    def __init__(
        self,
        body: bytes,
        *,
        media_type: str,
        headers: Mapping[str, str],
        bodies: Bodies,
        timeout_s: float,
    ) -> None:
        super().__init__(body, media_type=media_type, headers=dict(headers))
        self._bodies = bodies
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._bodies.hold(len(self.body)):
            try:
                async with asyncio.timeout(self._timeout_s):
                    await super().__call__(scope, receive, send)
            except TimeoutError as error:
                raise ClientGoneError from error


async def joined(pieces: Iterable[bytes]) -> bytes:
    """One body of `pieces`; other requests have their turn between them."""
    parts: list[bytes] = []
    for piece in pieces:
        if parts:
            await asyncio.sleep(0)
        parts.append(piece)
    return parts[0] if len(parts) == 1 else b"".join(parts)
