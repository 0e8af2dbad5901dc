"""Real servers on loopback that say byte by byte what a test wants said."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Handler = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Site:
    """A running server: where it is, what it was asked, and who is still connected.

    Attributes:
        heads: every request's head, as it came.
        num_connections: connections ever taken, also those that asked nothing.
        all_gone: set whenever nobody is connected.
    """

    port: int = 0
    heads: list[str] = field(default_factory=list)
    num_connections: int = 0
    all_gone: asyncio.Event = field(default_factory=asyncio.Event)


def answer(
    body: bytes, *, status: str = "200 OK", headers: Mapping[str, str] | None = None
) -> Handler:
    """A whole answer; `headers` replace Content-Length when they name it."""
    given = dict(headers or {})
    if not {"Content-Length", "Transfer-Encoding"} & set(given):
        given["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return raw(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)


def redirect(location: str) -> Handler:
    return answer(b"", status="302 Found", headers={"Location": location})


def raw(data: bytes) -> Handler:
    async def handle(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return handle


def endless(head: bytes, piece: bytes, pause_s: float = 0.0) -> Handler:
    async def handle(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return handle


@asynccontextmanager
async def serve(
    pages: Mapping[str, Handler], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Site]:
    """Serve `pages` by their path on a free port of 127.0.0.1."""
    site = Site()
    site.all_gone.set()
    tasks: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        site.num_connections += 1
        site.all_gone.clear()
        # Most of the clients here hang up in the middle.
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            site.heads.append(head)
            path = head.split(" ")[1]
            handling = asyncio.ensure_future(pages[path](writer))
            gone = asyncio.ensure_future(reader.read())
            try:
                await asyncio.wait({handling, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for part in (handling, gone):
                    part.cancel()
                await asyncio.gather(handling, gone, return_exceptions=True)
        writer.close()
        with suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()
        tasks.discard(task)
        if not tasks:
            site.all_gone.set()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=tls)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
