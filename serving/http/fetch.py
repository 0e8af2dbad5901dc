"""Fetch a file that a caller names by URL: from public hosts only, within bounds of size and time.

httpcore carries the requests, not an httpx client: nothing here may read proxies or .netrc, keep
cookies, follow redirects by itself, decompress, or log a caller's URL. Connections are not kept, so
that every one is checked and none is shared. Knows nothing of what the file is.
"""

import asyncio
import ssl
from importlib.metadata import version

import httpcore
import httpx

from serving.errors import InputError
from serving.http.connecting import CheckedBackend
from serving.http.errors import HttpError
from serving.http.resolve import Resolver, resolve
from serving.http.targets import AllowedHosts, Target, read_target, redirected
from serving.places import NOBODY, Places
from serving.settings.server import ServerSettings
from serving.turns import Flow

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

# Parsing a piece costs the event loop some 15 us however small the piece is; honest servers send
# pieces of a packet at least.
_FREE_PIECES = 1024
_MIN_MEAN_PIECE_BYTES = 256
_PIECES_AT_ONCE = 32


class Fetcher:
    """Fetches URLs as `settings` allow; one for the whole server."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._hosts = AllowedHosts.parse(settings.fetch_hosts)
        self._resolver = resolver
        # Of the environment only SSL_CERT_FILE and SSL_CERT_DIR are read, for authorities of one's own.
        self._tls = httpx.create_ssl_context() if tls is None else tls
        self._places = Places(settings.max_fetches)
        self._deadlines: set[asyncio.Timeout] = set()
        self._closed = False
        self._headers = (
            ("User-Agent", f"polyvec/{version('polyvec')}"),
            ("Accept", "image/*, application/pdf, */*;q=0.5"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        )

    async def fetch(self, url: str, *, max_bytes: int, flow: Flow = NOBODY) -> bytes:
        """The file at `url`. Waiting for a turn of `flow`'s is not part of `fetch_timeout_s`; all else is.

        Raises:
            InputError: the URL may not be fetched, or the answer is not a whole file of `max_bytes`.
            HttpError: 503, the server is stopping.
        """
        if not self._settings.fetch_urls:
            raise InputError(
                "This server does not fetch URLs. Send the file itself, encoded as base64."
            )
        target = read_target(url, self._hosts)
        timeout_s = self._settings.fetch_timeout_s
        async with self._places.taken(flow):
            if self._closed:
                raise _stopping()
            deadline = asyncio.timeout(timeout_s)
            try:
                async with deadline:
                    self._deadlines.add(deadline)
                    return await self._follow(target, max_bytes)
            except TimeoutError as error:
                if self._closed:
                    raise _stopping() from error
                raise InputError(
                    f"Fetching from {target.host} took more than {timeout_s:g} s."
                ) from error
            finally:
                self._deadlines.discard(deadline)

    async def close(self) -> None:
        """End the fetches in flight and take no more; they answer 503."""
        self._closed = True
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(asyncio.get_running_loop().time())
        async with self._places.all_taken():
            pass

    async def _follow(self, target: Target, max_bytes: int) -> bytes:
        for _ in range(self._settings.fetch_redirects + 1):
            answer = await self._get(target, max_bytes)
            if isinstance(answer, bytes):
                return answer
            target = answer
        raise InputError(
            f"The URL redirects more than {self._settings.fetch_redirects} times. "
            "Give the address that it leads to."
        )

    async def _get(self, target: Target, max_bytes: int) -> bytes | Target:
        """One request: the file, or where it is said to be."""
        backend = CheckedBackend(
            self._resolver,
            self._settings.fetch_private_networks,
            timeout_s=self._settings.fetch_timeout_s,
        )
        host = target.url.raw_host
        scheme = target.url.raw_scheme
        connection = httpcore.AsyncHTTPConnection(
            httpcore.Origin(scheme, host, target.port),
            ssl_context=self._tls,
            network_backend=backend,
        )
        url = httpcore.URL(scheme=scheme, host=host, port=target.port, target=target.url.raw_path)
        headers = [("Host", target.url.netloc.decode("ascii")), *self._headers]
        try:
            async with connection.stream("GET", url, headers=headers) as response:
                if response.status in _REDIRECTS:
                    return redirected(target, _location(response, target), self._hosts)
                _check_head(response, target, max_bytes)
                backend.expect_body(max_bytes)
                return await _read_body(response, target, max_bytes)
        except (httpcore.NetworkError, httpcore.TimeoutException, ssl.SSLError) as error:
            # Why is not said: strangers should not learn what listens where.
            raise InputError(
                f"The connection to {target.host} failed. Check that the URL opens elsewhere."
            ) from error
        except httpcore.ProtocolError as error:
            raise InputError(
                f"{target.host} broke off its answer, or gave one that is not HTTP."
            ) from error
        finally:
            await backend.aclose()


def _location(response: httpcore.Response, target: Target) -> str:
    locations = _header(response, b"location")
    if len(locations) != 1:
        raise InputError(f"{target.host} redirects without saying where to.")
    return locations[0].decode("utf-8", errors="replace")


def _check_head(response: httpcore.Response, target: Target, max_bytes: int) -> None:
    if response.status != 200:
        raise InputError(f"{target.host} answered with status {response.status} instead of 200.")
    for encoding in _header(response, b"content-encoding"):
        if encoding.strip().lower() not in (b"", b"identity"):
            raise InputError(
                f"{target.host} sent the file compressed although it was asked not to. "
                "Send the file as base64."
            )
    for length in _header(response, b"content-length"):
        if int(length) > max_bytes:  # httpcore has checked that it is a number
            raise InputError(
                f"The file at {target.host} has {int(length)} bytes; at most {max_bytes} are read."
            )


async def _read_body(response: httpcore.Response, target: Target, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    num_bytes = 0
    async for piece in response.aiter_stream():
        pieces.append(piece)
        num_bytes += len(piece)
        if num_bytes > max_bytes:
            raise InputError(
                f"The file at {target.host} has more than {max_bytes} bytes; at most "
                "that many are read."
            )
        if len(pieces) > _FREE_PIECES + num_bytes // _MIN_MEAN_PIECE_BYTES:
            raise InputError(f"{target.host} sends the file in pieces that are too small.")
        if len(pieces) % _PIECES_AT_ONCE == 0:
            await asyncio.sleep(0)  # many pieces may be there already; others want the loop too
    if num_bytes == 0:
        raise InputError(f"{target.host} sent an empty file.")
    return b"".join(pieces)


def _header(response: httpcore.Response, name: bytes) -> list[bytes]:
    return [value for key, value in response.headers if key.lower() == name]


def _stopping() -> HttpError:
    return HttpError(
        503, "SERVICE_UNAVAILABLE", "The server is stopping. Try again.", retry_after_s=5
    )
