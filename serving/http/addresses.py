"""Which IP addresses the server may connect to for its callers: public ones, and those an operator names.

The tables are IANA's special-purpose registries, read strictly: what may lead anywhere else than to the
open internet is refused. `ipaddress` alone is not trusted, since what Python 3.11.7 calls global
includes 64:ff9b:1::/48, 2002::/16, fec0::/10 and most of 192.0.0.0/24. Knows no hosts, DNS or HTTP.
"""

import ipaddress
from collections.abc import Sequence
from typing import assert_never

from serving.settings.server import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_CLOSED_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; one cloud's metadata service too
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # looks public, and is Azure's service for its own machines
        "169.254.0.0/16",  # link-local; the metadata service of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; one cloud's metadata service too
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

# Everything public in IPv6 is in here: not loopback, v4-mapped (::ffff:0:0/96) and v4-compatible
# (::/96) addresses, NAT64 (64:ff9b::/96, 64:ff9b:1::/48), discard-only, segment routing (5f00::/16),
# unique local (fc00::/7), link-local, site-local (fec0::/10) and multicast.
_OPEN_V6 = ipaddress.IPv6Network("2000::/3")

_CLOSED_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which may lead to any IPv4 address
        "3fff::/20",  # documentation
    )
)

# On a network without IPv4 every IPv4 host has such an address; the last four bytes are the host's.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether `address` belongs to one host on the open internet; False when that is not certain.

    Addresses that carry an IPv4 address inside are refused whatever they carry, except under NAT64's
    well-known prefix, where the carried address decides.
    """
    match address:
        case ipaddress.IPv4Address():
            return address.is_global and not _is_in(address, _CLOSED_V4)
        case ipaddress.IPv6Address():
            if address.scope_id is not None:
                return False
            if address in _NAT64:
                return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
            return address in _OPEN_V6 and address.is_global and not _is_in(address, _CLOSED_V6)
        case _:
            assert_never(address)


def may_connect(address: Address, extra: Sequence[Network]) -> bool:
    """Whether `address` is public, or inside one of the networks that are allowed by name."""
    return is_public(address) or _is_in(address, extra)


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    # Membership is False for the other version, so ::ffff:10.0.0.1 is not in 10.0.0.0/8.
    return any(address in network for network in networks)
