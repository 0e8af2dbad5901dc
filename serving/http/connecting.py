"""One connection for one request: the host is resolved once, and what was checked is connected to.

A seam of httpcore: it asks for a connection to a host, and keeps naming that host in TLS and in the
request. Because the addresses are looked up, checked and used here, in one go, a name server that
answers differently the next time changes nothing. Bytes are counted below HTTP, so that what a parser
swallows (headers, interim answers, chunk extensions) counts too. Knows no redirects or bodies.
"""

import ipaddress
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpcore

from serving.errors import InputError
from serving.http.addresses import Address, may_connect
from serving.http.resolve import Resolver
from serving.settings.server import Network

# A host may have many addresses; its owner should not get that many attempts.
_MAX_ATTEMPTS = 4

# A head is small, and parsing a flood of tiny headers or interim answers holds up the event loop: it
# is read in small steps, with others' turns between them.
_MAX_HEAD_BYTES = 64 * 1024
_HEAD_STEP_BYTES = 4 * 1024

# A body may come in chunks, whose sizes and extensions come on top.
_CHUNKING_SHARE = 4


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Opens the one connection of one request, and closes it whatever happened to the request."""

    def __init__(
        self,
        resolver: Resolver,
        extra_networks: Sequence[Network],
        *,
        timeout_s: float,
    ) -> None:
        self._resolver = resolver
        self._extra_networks = extra_networks
        self._timeout_s = timeout_s
        self._budget = _ReadBudget(_MAX_HEAD_BYTES, _HEAD_STEP_BYTES)
        self._opened: list[httpcore.AsyncNetworkStream] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to an address of `host`.

        Raises:
            InputError: the host has no address, or any that may not be connected to.
            httpcore.ConnectError: no address took the connection.
            httpcore.ConnectTimeout: the last one tried did not answer.
        """
        addresses = (await self._checked_addresses(host))[:_MAX_ATTEMPTS]
        for address in addresses[:-1]:
            try:
                return await self._connect(address, port, self._timeout_s / len(addresses))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._connect(addresses[-1], port, None)

    def expect_body(self, max_bytes: int) -> None:
        """Let a body of `max_bytes` be read; before this, only a head may be."""
        self._budget.left_bytes += max_bytes + max_bytes // _CHUNKING_SHARE
        self._budget.step_bytes = None

    async def aclose(self) -> None:
        """Close the connection, also one whose TLS handshake was cancelled."""
        for stream in self._opened:
            await stream.aclose()

    async def _checked_addresses(self, host: str) -> tuple[Address, ...]:
        try:
            addresses: tuple[Address, ...] = (ipaddress.ip_address(host),)
        except ValueError:
            addresses = await self._resolver(host)
        # One answer for names that do not exist and names inside the operator's network: telling
        # them apart would let strangers list that network.
        if not addresses or not all(
            may_connect(address, self._extra_networks) for address in addresses
        ):
            raise InputError(
                f"{host} has no public address; only hosts on the public internet are fetched from."
            )
        return addresses

    async def _connect(
        self, address: Address, port: int, timeout_s: float | None
    ) -> httpcore.AsyncNetworkStream:
        stream = await httpcore.AnyIOBackend().connect_tcp(str(address), port, timeout=timeout_s)
        self._opened.append(stream)
        return _CountedStream(stream, self._budget)


@dataclass(slots=True)
class _ReadBudget:
    """What may still be read, and how much of it at once; None is what the reader asks for."""

    left_bytes: int
    step_bytes: int | None


class _CountedStream(httpcore.AsyncNetworkStream):
    """A stream that ends in an error once more was read than the answer may need."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, budget: _ReadBudget) -> None:
        self._stream = stream
        self._budget = budget

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        step_bytes = self._budget.step_bytes
        at_once = max_bytes if step_bytes is None else min(max_bytes, step_bytes)
        data = await self._stream.read(at_once, timeout)
        self._budget.left_bytes -= len(data)
        if self._budget.left_bytes < 0:
            raise httpcore.RemoteProtocolError("The answer is too long.")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _CountedStream(stream, self._budget)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
