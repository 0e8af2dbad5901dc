"""What may be fetched, as far as its URL says: scheme, host, port, and the operator's list of hosts.

Parsing happens once, here: the checked parts are the parts that are connected to, so that no second
reader of the same text can understand it differently. Knows no DNS, addresses or connections.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import httpx

from serving.errors import InputError, SettingsError

_MAX_URL_CHARACTERS = 8192
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Underscores are no part of a host's name, but do occur in names of storage buckets.
_NAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
# The resolver reads 0x7f.1, 017700000001 and 2130706433 as IPv4 addresses.
_NUMERIC_ENDING = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be tried.

    Attributes:
        url: without credentials and fragment, the host in ASCII, lower case, without a trailing dot.
        port: 1 to 65535, the scheme's own when the URL names none.
    """

    url: httpx.URL
    port: int

    @property
    def host(self) -> str:
        """The host as it is resolved, named in TLS and shown in messages; IPv6 without brackets."""
        return self.url.raw_host.decode("ascii")


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The hosts that an operator lists; without a list, all.

    Attributes:
        names: hosts that are allowed themselves.
        suffixes: `.example.com` for `*.example.com`, which stands for every host below example.com.
        restricted: False when every host is allowed.
    """

    names: frozenset[str]
    suffixes: tuple[str, ...]
    restricted: bool

    @classmethod
    def parse(cls, patterns: Iterable[str]) -> Self:
        """Read `fetch_hosts`.

        Raises:
            SettingsError: an entry is no host, such as a URL; it would never match.
        """
        names: set[str] = set()
        suffixes: list[str] = []
        for pattern in patterns:
            below = pattern.startswith("*.")
            try:
                name = _ascii_host(pattern.removeprefix("*."))
            except (httpx.InvalidURL, ValueError) as error:
                raise SettingsError(
                    f"fetch_hosts holds {pattern!r}, which is neither a host (example.com) nor "
                    "all hosts below one (*.example.com). Give hosts without scheme, port or path."
                ) from error
            if below:
                suffixes.append(f".{name}")
            else:
                names.add(name)
        return cls(frozenset(names), tuple(suffixes), restricted=bool(names or suffixes))

    def allow(self, host: str) -> bool:
        """Whether `host`, as `Target.host` gives it, may be fetched from."""
        return not self.restricted or host in self.names or host.endswith(self.suffixes)


def read_target(text: str, hosts: AllowedHosts) -> Target:
    """Check what a caller gave as a URL.

    Raises:
        InputError: it is no http(s) URL, holds credentials, or names a host that is not allowed.
    """
    if len(text) > _MAX_URL_CHARACTERS:
        raise InputError(
            f"The URL has {len(text)} characters; at most {_MAX_URL_CHARACTERS} are read."
        )
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        # The error quotes the URL, which may hold secrets.
        raise InputError("The URL cannot be read. Check its host, port and characters.") from error
    return check_target(url, hosts)


def redirected(target: Target, location: str, hosts: AllowedHosts) -> Target:
    """Check where a redirect of `target` leads.

    Raises:
        InputError: as for a URL that a caller gave.
    """
    if len(location) > _MAX_URL_CHARACTERS:
        raise InputError(f"{target.host} redirects to a URL that is too long.")
    try:
        url = target.url.join(location)
    except (httpx.InvalidURL, ValueError) as error:
        raise InputError(f"{target.host} redirects to a URL that cannot be read.") from error
    return check_target(url, hosts)


def check_target(url: httpx.URL, hosts: AllowedHosts) -> Target:
    """Check the parts of a URL.

    Raises:
        InputError: it is not http(s), holds credentials, or names a host or port that is not allowed.
    """
    default_port = _DEFAULT_PORTS.get(url.scheme)
    if default_port is None:
        raise InputError("Only http and https URLs are fetched; send other files as base64.")
    if url.userinfo:
        raise InputError("The URL holds a user name or password. URLs are fetched without them.")
    host = _checked(url.raw_host.decode("ascii"))
    if not hosts.allow(host):
        raise InputError(
            f"{host} is not among the hosts that this server fetches from. Send the file as base64."
        )
    port = default_port if url.port is None else url.port
    if not 1 <= port <= 65535:
        raise InputError(f"The URL names port {port}; ports are 1 to 65535.")
    return Target(url.copy_with(host=host, fragment=None), port)


def _ascii_host(host: str) -> str:
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    url = httpx.URL(f"http://{bracketed}/")
    if url.userinfo or url.port is not None or url.raw_path != b"/":
        raise InputError("This is more than a host.")
    return _checked(url.raw_host.decode("ascii"))


def _checked(host: str) -> str:
    """The host as it is compared and resolved; refuses what only looks like a host name."""
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError as error:
            raise InputError("The URL's host is not an IPv6 address.") from error
        if address.scope_id is not None:
            raise InputError("The URL's host is an IPv6 address with a zone; leave the zone out.")
        return str(address)
    name = host.removesuffix(".")
    if not _NAME.fullmatch(name):
        raise InputError("The URL's host is not a host name. Check how it is spelled.")
    if _NUMERIC_ENDING.fullmatch(name):
        try:
            ipaddress.IPv4Address(name)
        except ValueError as error:
            raise InputError(
                "The URL's host is a number that is not an IPv4 address of four decimal parts."
            ) from error
    return name
