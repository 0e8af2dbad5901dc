"""A finished answer on its way to the client: counted while it is in memory, dropped when nobody reads it."""

import asyncio
from collections.abc import Iterable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.http.body import Bodies
from serving.http.edge import ClientGoneError
from serving.http.visit import Visit

JSON = "application/json"

# The server takes the next piece when the client has read most of the last one: all at once, a whole answer
# would lie in a buffer that nobody counts, for as long as its client likes.
_PIECE_BYTES = 256 * 1024

# Two milliseconds of floats.
_TURN_BYTES = 512 * 1024


class Answer(Response):
    """A whole body that is sent within a time.

    Args:
        body: all of it.
        media_type: of the body.
        headers: further headers.
        bodies: counts the body until it is sent.
        visit: whose it is; what it holds is given back with the last piece.
        timeout_s: a client that has not read it by then is taken for gone.
    """

    def __init__(
        self,
        body: bytes,
        *,
        media_type: str,
        headers: Mapping[str, str],
        bodies: Bodies,
        visit: Visit,
        timeout_s: float,
    ) -> None:
        super().__init__(body, media_type=media_type, headers=dict(headers))
        self._bodies = bodies
        self._visit = visit
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, no faster than it is read."""
        body = bytes(self.body)
        num_bytes = len(body)
        with self._bodies.share(self._visit.flow_name) as share:
            share.hold(num_bytes)
            try:
                async with asyncio.timeout(self._timeout_s):
                    await send(
                        {
                            "type": "http.response.start",
                            "status": self.status_code,
                            "headers": self.raw_headers,
                        }
                    )
                    for start in range(0, num_bytes, _PIECE_BYTES):
                        end = start + _PIECE_BYTES
                        piece = body if num_bytes <= _PIECE_BYTES else body[start:end]
                        if end >= num_bytes:
                            # Before it is sent: who reads it may ask again at once.
                            await self._visit.give_back()
                        await send(
                            {
                                "type": "http.response.body",
                                "body": piece,
                                "more_body": end < num_bytes,
                            }
                        )
            except TimeoutError as error:
                raise ClientGoneError from error


async def joined(pieces: Iterable[bytes]) -> bytes:
    """One body of `pieces`; other requests have their turn whenever half a megabyte of it was made."""
    made: list[bytes] = []
    num_bytes = 0
    for piece in pieces:
        if num_bytes >= _TURN_BYTES:
            await asyncio.sleep(0)
            num_bytes = 0
        made.append(piece)
        num_bytes += len(piece)
    return b"".join(made)
