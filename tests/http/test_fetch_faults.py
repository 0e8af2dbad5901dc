import asyncio
import contextlib
import gzip
from collections.abc import Awaitable, Callable

import pytest

from serving.http.addresses import Address
from serving.http.errors import HttpError
from tests.http.fetching import MAX_BYTES, OK, asked, make_fetcher, reason, refusal
from tests.http.sites import answer, endless, raw, redirect, serve

# Answers that are refused


@pytest.mark.parametrize(
    "status", ["204 No Content", "206 Partial Content", "304 Same", "404 Not Found", "500 Error"]
)
def test_any_status_but_200_is_refused_without_what_it_says(status: str) -> None:
    message = reason(answer(b"", status=status, headers={"X": "secret"}))
    assert f"status {status[:3]}" in message
    assert "secret" not in message


def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    message = reason(raw(OK + b"Content-Length: 100001\r\n\r\n"))
    assert "100001 bytes; at most 100000" in message


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"\r\n", b"x" * 5000),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    ],
)
def test_an_endless_body_is_read_up_to_the_bound(head: bytes, piece: bytes) -> None:
    assert "more than 100000 bytes" in reason(endless(OK + head, piece))


def test_a_body_that_is_shorter_than_it_says_is_refused() -> None:
    assert "broke off" in reason(answer(b"short", headers={"Content-Length": "50"}))


def test_what_follows_a_body_of_a_stated_length_is_not_read() -> None:
    async def test() -> None:
        async with serve({"/": answer(b"abcdef", headers={"Content-Length": "3"})}) as site:
            fetcher = make_fetcher()
            assert await fetcher.fetch(f"http://127.0.0.1:{site.port}/", max_bytes=3) == b"abc"

    asyncio.run(test())


def test_an_empty_file_is_refused() -> None:
    assert "empty file" in reason(answer(b""))


def test_a_compressed_body_is_refused_before_it_grows() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    assert "compressed" in reason(answer(bomb, headers={"Content-Encoding": "GZip"}))


def test_a_body_in_tiny_pieces_is_refused() -> None:
    chunks = b"1\r\nx\r\n" * 10_000
    assert "too small" in reason(raw(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks))


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_without_what_it_says(data: bytes) -> None:
    message = reason(raw(data))
    assert "broke off" in message or "status 101" in message
    assert "SSH" not in message


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (OK, b"a: b\r\n" * 500),
        (OK + b"a: ", b"b" * 3000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (b"", b"\r\n" * 1000),
    ],
)
def test_a_flood_of_headers_is_cut_off(head: bytes, piece: bytes) -> None:
    assert "broke off" in reason(endless(head, piece))


def test_a_connection_that_nobody_takes_is_refused() -> None:
    async def test() -> None:
        async with serve({}) as site:
            port = site.port
        assert "connection to 127.0.0.1 failed" in await refusal(f"http://127.0.0.1:{port}/")

    asyncio.run(test())


# Time


@pytest.mark.parametrize(
    "handler",
    [
        endless(OK + b"Content-Length: 50000\r\n\r\n", b"x", pause_s=0.01),
        endless(OK, b"a: b\r\n", pause_s=0.01),
        endless(b"", b"", pause_s=0.01),
    ],
    ids=["body", "headers", "silence"],
)
def test_a_server_that_drips_is_given_up_after_the_whole_time(
    handler: Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> None:
    assert "more than 0.2 s" in reason(handler, fetch_timeout_s=0.2)


def test_redirects_share_one_time() -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.08)
        await redirect("/")(writer)

    assert "more than 0.2 s" in reason(slow, fetch_timeout_s=0.2, fetch_redirects=100)


def test_a_name_server_that_does_not_answer_is_given_up() -> None:
    async def never(host: str) -> tuple[Address, ...]:
        await asyncio.Event().wait()
        return ()

    message = asyncio.run(refusal("http://example.com/", resolver=never, fetch_timeout_s=0.05))
    assert "more than 0.05 s" in message


def test_a_cancelled_fetch_closes_its_connection() -> None:
    async def test() -> None:
        async with serve({"/": endless(OK + b"\r\n", b"x", pause_s=0.01)}) as site:
            fetcher = make_fetcher()
            fetch = asyncio.ensure_future(
                fetcher.fetch(f"http://127.0.0.1:{site.port}/", max_bytes=MAX_BYTES)
            )
            await asked(site)
            fetch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetch
            await site.all_gone.wait()

    asyncio.run(test())


def test_a_fetch_that_is_cancelled_while_tls_is_set_up_closes_its_connection() -> None:
    async def test() -> None:
        connected, gone = asyncio.Event(), asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            connected.set()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            gone.set()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        fetch = asyncio.ensure_future(
            make_fetcher().fetch(f"https://127.0.0.1:{port}/", max_bytes=1)
        )
        await connected.wait()
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
        await gone.wait()
        server.close()
        await server.wait_closed()

    asyncio.run(test())


def test_no_more_than_max_fetches_run_at_once() -> None:
    async def test() -> None:
        running = most = 0

        async def counted(writer: asyncio.StreamWriter) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            await answer(b"x")(writer)

        async with serve({"/": counted}) as site:
            fetcher = make_fetcher(max_fetches=3)
            url = f"http://127.0.0.1:{site.port}/"
            await asyncio.gather(*(fetcher.fetch(url, max_bytes=1) for _ in range(12)))
        assert most == 3

    asyncio.run(test())


def test_closing_ends_fetches_in_flight_and_waiting_with_503() -> None:
    async def test() -> None:
        async with serve({"/": endless(OK + b"\r\n", b"x", pause_s=0.01)}) as site:
            fetcher = make_fetcher(max_fetches=1, fetch_timeout_s=1000)
            url = f"http://127.0.0.1:{site.port}/"
            fetches = [
                asyncio.ensure_future(fetcher.fetch(url, max_bytes=MAX_BYTES)) for _ in range(3)
            ]
            await asked(site)
            await fetcher.close()
            results = await asyncio.gather(*fetches, return_exceptions=True)
            assert [isinstance(result, HttpError) for result in results] == [True] * 3
            await site.all_gone.wait()
            assert site.num_connections == 1

    asyncio.run(test())
