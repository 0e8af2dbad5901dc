"""A client that sends what it is told to, byte by byte, and reads what comes back."""

import io
import json
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any, Self

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class _Incoming(io.RawIOBase):
    """The bytes of a socket, which stays its owner's to close."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._source.recv_into(buffer)


class _Received(io.BufferedReader):
    """What came. It outlives an answer: two that came in one packet are read one after the other."""

    def makefile(self, mode: str) -> Self:
        assert mode == "rb"
        return self

    def close(self) -> None:
        """HTTPResponse closes what it has read from."""


class Connection:
    """One TCP connection; closed when the block is left."""

    def __init__(self, port: int, *, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_bytes is not None:
            # What the kernel takes for a reader that does not read.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(("127.0.0.1", port))
        self._received = _Received(_Incoming(self.socket))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send `data`, or as much as the server takes before it hangs up."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def reply(self, method: str = "POST") -> Reply:
        """The next answer.

        Raises:
            ConnectionError: there is none.
        """
        response = HTTPResponse(self._received, method=method)  # type: ignore[arg-type]
        try:
            response.begin()
            return Reply(response.status, dict(response.headers.items()), response.read())
        except HTTPException as error:
            raise ConnectionError("the connection was closed") from error
        finally:
            response.close()

    def rest(self) -> bytes:
        """All that comes until the server hangs up."""
        received = bytearray()
        with suppress(ConnectionResetError):
            while data := self._received.read1(65_536):
                received += data
        return bytes(received)

    def reset(self) -> None:
        """Hang up at once, as a process that is killed does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def post(
    body: bytes,
    path: str = "/v1/embeddings",
    *,
    length: int | None = None,
    key: str | None = None,
    headers: str = "",
) -> bytes:
    """A request; `length` is what it says of its body."""
    num_bytes = len(body) if length is None else length
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Content-Length: {num_bytes}\r\n{authorization}{headers}\r\n"
    )
    return head.encode() + body


def embeddings(*texts: str, **fields: object) -> bytes:
    """The body of a request for the vectors of `texts`."""
    return json.dumps({"model": "jina-embeddings-v4", "input": list(texts)} | fields).encode()
