"""Fetchers that may connect to loopback, and name servers that say what a test wants said."""

import asyncio
import functools
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from serving.errors import InputError
from serving.http.addresses import Address
from serving.http.fetch import Fetcher
from serving.http.resolve import Resolver, resolve
from serving.settings.server import ServerSettings
from tests.http.sites import Site, serve

LOOPBACK = ("127.0.0.0/8",)
OK = b"HTTP/1.1 200 OK\r\n"
MAX_BYTES = 100_000


def settings(**given: Any) -> ServerSettings:
    return ServerSettings(**{"fetch_private_networks": LOOPBACK, **given})


@functools.cache
def trusting() -> ssl.SSLContext:
    """A client's context; reading the authorities for every fetcher would take most of the time."""
    return ssl.create_default_context()


def make_fetcher(
    *, resolver: Resolver = resolve, tls: ssl.SSLContext | None = None, **given: Any
) -> Fetcher:
    return Fetcher(settings(**given), resolver=resolver, tls=tls or trusting())


class Names:
    """A name server: each name has a list of answers, the last of which it goes on giving."""

    def __init__(self, **answers: list[tuple[str, ...]]) -> None:
        self._answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str) -> tuple[Address, ...]:
        self.asked.append(host)
        given = self._answers.get(host, [()])
        addresses = given.pop(0) if len(given) > 1 else given[0]
        return tuple(ipaddress.ip_address(address) for address in addresses)


async def refusal(
    url: str, *, resolver: Resolver = resolve, max_bytes: int = MAX_BYTES, **given: Any
) -> str:
    """Why `url` is refused."""
    fetcher = make_fetcher(resolver=resolver, **given)
    with pytest.raises(InputError) as caught:
        await fetcher.fetch(url, max_bytes=max_bytes)
    return caught.value.reason


def reason(handler: Callable[[asyncio.StreamWriter], Awaitable[None]], **given: Any) -> str:
    """Why a page answered by `handler` is refused; its connection is closed."""

    async def test() -> str:
        async with serve({"/": handler}) as site:
            message = await refusal(f"http://127.0.0.1:{site.port}/", **given)
            await site.all_gone.wait()
            return message

    return asyncio.run(test())


async def asked(site: Site) -> None:
    while not site.heads:
        await asyncio.sleep(0.005)
