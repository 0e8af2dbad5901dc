"""Host names to addresses, by the system's resolver, without taking threads from anybody else.

A hostile name server can keep a lookup waiting for long after the fetch has given up. On the event
loop's own threads (four with uvloop) a few of those would stop every other lookup, and threads that
the interpreter waits for would hold up its exit; so each lookup has a daemon thread of its own. How
many there are is bounded by `max_fetches` and the system resolver's own timeout.

Knows no policy: which addresses may be used is decided where they are connected to.
"""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

from serving.http.addresses import Address

Resolver = Callable[[str], Awaitable[tuple[Address, ...]]]


async def resolve(host: str) -> tuple[Address, ...]:
    """All addresses of `host`, in the order to try them; none when it has none or nobody knows."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[Address, ...]] = loop.create_future()
    thread = threading.Thread(
        target=_look_up, args=(host, loop, answer), name=f"resolve {host}", daemon=True
    )
    thread.start()
    return await answer


def _look_up(
    host: str, loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[tuple[Address, ...]]"
) -> None:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        found = []
    # A lookup has one entry for each kind of socket too; the zone of a link-local address stays on.
    addresses = tuple(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))
    with suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(_settle, answer, addresses)


def _settle(answer: "asyncio.Future[tuple[Address, ...]]", addresses: tuple[Address, ...]) -> None:
    if not answer.done():
        answer.set_result(addresses)
