import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.http.addresses import is_public, may_connect

CLOSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.9",
    "192.0.0.170",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.255",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.254",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "::7f00:1",
    "::8.8.8.8",
    "::ffff:0:0",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:8.8.8.8",
    "::ffff:0:8.8.8.8",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:0:1::8.8.8.8",
    "64:ff9b:1::8.8.8.8",
    "64:ff9b:1:ffff::1",
    "100::1",
    "100:0:0:1::1",
    "1fff::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:1::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:1ff:ffff::1",
    "2001:db8::1",
    "2001:db8:ffff:ffff::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "3fff:fff:ffff::1",
    "4000::1",
    "5f00::1",
    "e000::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fdff:ffff::1",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fec0::1",
    "feff::1",
    "ff02::1",
    "ff0e::1",
    "2606:4700::1111%eth0",
]

OPEN = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
    "3ffe::1",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("text", CLOSED)
def test_an_address_that_is_not_on_the_open_internet_is_refused(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", OPEN)
def test_an_address_on_the_open_internet_is_taken(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@given(st.ip_addresses())
def test_what_python_knows_to_be_special_is_never_public(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    special = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )
    if special:
        assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_an_ipv6_address_is_only_taken_behind_nat64(
    address: ipaddress.IPv4Address,
) -> None:
    number = int(address)
    for prefix in ("::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b:1::", "2002::"):
        base = int(ipaddress.IPv6Address(prefix))
        shift = 80 if prefix == "2002::" else 0
        assert not is_public(ipaddress.IPv6Address(base | number << shift))
    through_nat64 = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number)
    assert is_public(through_nat64) == is_public(address)


@given(st.ip_addresses(v=6))
def test_a_public_ipv6_address_is_global_unicast_or_behind_nat64(
    address: ipaddress.IPv6Address,
) -> None:
    if is_public(address):
        assert int(address) >> 125 == 1 or int(address) >> 32 == 0x64FF9B << 64


def test_a_network_that_is_named_is_allowed_and_nothing_beside_it() -> None:
    networks = (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd12::/32"))
    allowed = {
        text: may_connect(ipaddress.ip_address(text), networks)
        for text in ("10.1.2.3", "10.2.0.1", "fd12::1", "fd13::1", "::ffff:10.1.2.3", "8.8.8.8")
    }
    assert allowed == {
        "10.1.2.3": True,
        "10.2.0.1": False,
        "fd12::1": True,
        "fd13::1": False,
        "::ffff:10.1.2.3": False,
        "8.8.8.8": True,
    }


def test_without_named_networks_only_public_addresses_are_allowed() -> None:
    assert not may_connect(ipaddress.ip_address("127.0.0.1"), ())
    assert may_connect(ipaddress.ip_address("8.8.8.8"), ())
