import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from serving.errors import InputError
from serving.http.fetch import Fetcher
from serving.http.resolve import resolve
from tests.http.fetching import (
    LOOPBACK,
    MAX_BYTES,
    OK,
    Names,
    make_fetcher,
    reason,
    refusal,
    settings,
)
from tests.http.sites import answer, raw, redirect, serve

# What is fetched


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_file_is_fetched_whole(run: Callable[[Any], None]) -> None:
    body = bytes(range(256)) * 100

    async def test() -> None:
        async with serve({"/a.png?x=1": answer(body)}) as site:
            fetcher = make_fetcher(fetch_private_networks=(*LOOPBACK, "::1/128"))
            url = f"http://localhost:{site.port}/a.png?x=1#part"
            assert await fetcher.fetch(url, max_bytes=len(body)) == body
            await fetcher.close()
            assert site.heads[0].startswith(
                f"GET /a.png?x=1 HTTP/1.1\r\nHost: localhost:{site.port}\r\n"
            )

    run(test())


def test_requests_tell_who_asks_and_ask_for_no_compression() -> None:
    async def test() -> None:
        async with serve({"/": answer(b"x", headers={"Set-Cookie": "a=b"})}) as site:
            fetcher = make_fetcher()
            for _ in range(2):
                await fetcher.fetch(f"http://127.0.0.1:{site.port}/", max_bytes=1)
            for head in site.heads:
                assert "User-Agent: polyvec/" in head
                assert "Accept-Encoding: identity" in head
                assert "Cookie" not in head

    asyncio.run(test())


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Transfer-Encoding: chunked\r\n", b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n"),
        ("", b"abc"),  # ends with the connection
        ("Content-Encoding: identity\r\nContent-Length: 3\r\n", b"abc"),
    ],
)
def test_each_way_to_send_a_body_is_read(head: str, body: bytes) -> None:
    async def test() -> None:
        async with serve({"/": raw(OK + head.encode() + b"\r\n" + body)}) as site:
            fetcher = make_fetcher()
            assert await fetcher.fetch(f"http://127.0.0.1:{site.port}/", max_bytes=3) == b"abc"

    asyncio.run(test())


def test_redirects_are_followed_to_the_file() -> None:
    async def test() -> None:
        async with serve({"/d": answer(b"file")}) as other:
            pages = {
                "/a": redirect("/b"),
                "/b": redirect("b/c"),
                "/b/c": redirect(f"//127.0.0.1:{other.port}/d"),
            }
            async with serve(pages) as site:
                fetcher = make_fetcher()
                url = f"http://127.0.0.1:{site.port}/a"
                assert await fetcher.fetch(url, max_bytes=MAX_BYTES) == b"file"

    asyncio.run(test())


def test_the_next_address_is_tried_when_one_does_not_take_the_connection() -> None:
    async def test() -> None:
        async with serve({"/": answer(b"file")}) as site:
            names = Names(two_example_com=[("127.0.0.2", "127.0.0.1")])
            fetcher = make_fetcher(resolver=names)
            url = f"http://two.example.com:{site.port}/"
            assert await fetcher.fetch(url, max_bytes=MAX_BYTES) == b"file"
            assert names.asked == ["two.example.com"]

    asyncio.run(test())


# Where it is refused to connect to


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1.",
        "127。0。0。1",
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "localhost",
        "LOCALHOST",
        "localhost.",
    ],
)
def test_an_address_of_this_machine_or_its_network_is_refused_however_it_is_spelled(
    host: str,
) -> None:
    async def test() -> None:
        async with serve({"/": answer(b"secret")}) as site:
            message = await refusal(f"http://{host}:{site.port}/", fetch_private_networks=())
            assert "no public address" in message
            assert site.num_connections == 0

    asyncio.run(test())


def test_names_that_do_not_exist_and_names_inside_the_network_are_told_the_same() -> None:
    names = Names(inside_example_com=[("10.0.0.1",)], mixed_example_com=[("8.8.8.8", "10.0.0.1")])
    reasons = {
        asyncio.run(refusal(f"http://{name}.example.com/", resolver=names)).replace(name, "")
        for name in ("inside", "mixed", "missing")
    }
    assert len(reasons) == 1
    assert "10.0.0.1" not in reasons.pop()


def test_a_host_with_one_private_address_among_public_ones_is_refused() -> None:
    async def test() -> None:
        async with serve({"/": answer(b"secret")}) as site:
            for addresses in (("8.8.8.8", "127.0.0.1"), ("127.0.0.1", "8.8.8.8")):
                names = Names(mixed_example_com=[addresses])
                url = f"http://mixed.example.com:{site.port}/"
                message = await refusal(url, resolver=names, fetch_private_networks=())
                assert "no public address" in message
            assert site.num_connections == 0

    asyncio.run(test())


def test_the_address_that_was_checked_is_connected_to_whatever_the_next_lookup_says() -> None:
    async def test() -> None:
        pages = {"/": answer(b"checked")}
        async with serve(pages) as site:
            # The first answer is allowed; a second lookup would lead to an address nobody checked.
            names = Names(rebind_example_com=[("127.0.0.1",), ("10.255.255.1",)])
            fetcher = make_fetcher(resolver=names)
            url = f"http://rebind.example.com:{site.port}/"
            assert await fetcher.fetch(url, max_bytes=MAX_BYTES) == b"checked"
            assert names.asked == ["rebind.example.com"]
            assert f"Host: rebind.example.com:{site.port}" in site.heads[0]
            # The next fetch asks, and checks, anew: no connection was kept.
            with pytest.raises(InputError, match="no public address"):
                await fetcher.fetch(url, max_bytes=MAX_BYTES)
            assert site.num_connections == 1

    asyncio.run(test())


def test_fetching_can_be_switched_off() -> None:
    names = Names()
    message = asyncio.run(refusal("http://example.com/", resolver=names, fetch_urls=False))
    assert "base64" in message
    assert names.asked == []


def test_a_listed_host_must_be_public_too() -> None:
    message = asyncio.run(
        refusal("http://127.0.0.1/", fetch_hosts=("127.0.0.1",), fetch_private_networks=())
    )
    assert "no public address" in message


def test_a_host_that_is_not_listed_is_not_looked_up() -> None:
    names = Names()
    message = asyncio.run(
        refusal("http://example.com.evil.org/", resolver=names, fetch_hosts=("example.com",))
    )
    assert "example.com.evil.org is not among" in message
    assert names.asked == []


# Redirects


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://169.254.169.254/latest/meta-data/", "no public address"),
        ("http://[::ffff:169.254.169.254]/", "no public address"),
        ("//10.0.0.1/", "no public address"),
        ("file:///etc/passwd", "Only http and https"),
        ("http://user:x@127.0.0.1/", "user name or password"),
        ("http://2852039166/", "four decimal parts"),
        ("http://[", "not"),
        ("x" * 9000, "too long"),
    ],
)
def test_each_redirect_is_checked_as_the_first_url_was(location: str, why: str) -> None:
    assert why in reason(redirect(location))


def test_a_redirect_to_a_host_that_is_not_listed_is_refused() -> None:
    message = reason(redirect("http://evil.org/"), fetch_hosts=("127.0.0.1",))
    assert "evil.org is not among" in message


def test_a_redirect_loop_ends_after_the_allowed_number() -> None:
    async def test() -> None:
        async with serve({"/": redirect("/")}) as site:
            message = await refusal(f"http://127.0.0.1:{site.port}/", fetch_redirects=2)
            assert "more than 2 times" in message
            assert site.num_connections == 3

    asyncio.run(test())


def test_a_redirect_must_say_where_to() -> None:
    assert "without saying where" in reason(answer(b"", status="301 Moved"))


# TLS


def certificate(folder: Path, host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for `host`, and a client's context that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


def test_tls_names_and_verifies_the_host_of_the_url_not_the_address(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "files.example.com")
    seen: list[str | None] = []
    server.sni_callback = lambda _, name, __: seen.append(name)

    async def test() -> None:
        async with serve({"/": answer(b"file")}, tls=server) as site:
            names = Names(files_example_com=[("127.0.0.1",)], other_example_com=[("127.0.0.1",)])
            fetcher = make_fetcher(resolver=names, tls=client)
            url = f"https://files.example.com.:{site.port}/"
            assert await fetcher.fetch(url, max_bytes=9) == b"file"
            assert seen == ["files.example.com"]
            with pytest.raises(InputError, match=r"connection to other\.example\.com failed"):
                await fetcher.fetch(f"https://other.example.com:{site.port}/", max_bytes=9)
            distrustful = Fetcher(settings(), resolver=names)
            with pytest.raises(InputError, match="failed"):
                await distrustful.fetch(url, max_bytes=9)

    asyncio.run(test())


def test_the_system_resolver_knows_this_machine_and_does_not_fail_for_names_that_are_none() -> None:
    assert ipaddress.IPv4Address("127.0.0.1") in asyncio.run(resolve("localhost"))
    assert asyncio.run(resolve("does-not-exist.invalid")) == ()
