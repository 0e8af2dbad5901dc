"""Requests that are wrong before their body: heads, paths, methods, lengths."""

from collections.abc import Iterator

from tests.http.hostile.bodies import SOUND
from tests.http.hostile.case import MARK, Case, Raw

HOST = b"Host: a\r\n"
JSON = b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(SOUND)


def request(
    line: bytes = b"POST /v1/embeddings HTTP/1.1",
    head: bytes = HOST + JSON + LENGTH,
    body: bytes = SOUND,
) -> bytes:
    return line + b"\r\n" + head + b"\r\n" + body


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def cases() -> Iterator[Case]:
    yield from lengths()
    yield from headers()
    yield from paths()
    yield from methods()
    yield from lines()


def lengths() -> Iterator[Case]:
    def sent(name: str, status: int, head: bytes, body: bytes = SOUND) -> Case:
        code = "REQUEST_TOO_LARGE" if status == 413 else None
        return Case(
            f"length: {name}",
            Raw(lambda: request(head=HOST + JSON + head, body=body)),
            status,
            code,
        )

    chunks = b"Transfer-Encoding: chunked\r\n"
    yield sent("none", 422, b"", b"")
    yield sent("chunks", 200, chunks, chunked(SOUND[:9], SOUND[9:]))
    yield sent("a chunk a byte", 200, chunks, chunked(*(bytes([one]) for one in SOUND)))
    yield sent("too many chunks", 413, chunks, chunked(*[b" " * 65_536] * 40))
    yield sent("a chunk of no number", 400, chunks, b"zz\r\n" + SOUND)
    yield sent("a negative chunk", 400, chunks, b"-5\r\n" + SOUND)
    yield sent("a chunk of 2^64", 400, chunks, b"10000000000000000\r\n" + SOUND)
    yield sent("a chunk longer than it says", 400, chunks, b"2\r\n" + SOUND + b"\r\n0\r\n\r\n")
    yield sent("too short", 422, b"Content-Length: 5\r\n", SOUND[:5])
    yield sent("too large", 413, b"Content-Length: 2097153\r\n", b"")
    yield sent("far too large", 413, b"Content-Length: 99999999999999\r\n", b"")
    yield sent("past 64 bits", 400, b"Content-Length: 99999999999999999999999\r\n", b"")
    yield sent("negative", 400, b"Content-Length: -1\r\n")
    yield sent("a word", 400, b"Content-Length: " + MARK.encode() + b"\r\n")
    yield sent("hexadecimal", 400, b"Content-Length: 0x10\r\n")
    yield sent("with a plus", 400, b"Content-Length: +5\r\n")
    yield sent("twice, differently", 400, LENGTH + b"Content-Length: 5\r\n")
    yield sent("and chunks", 400, LENGTH + chunks, chunked(SOUND))
    yield sent("chunks and another", 400, b"Transfer-Encoding: chunked, gzip\r\n", chunked(SOUND))
    yield sent("another coding", 400, b"Transfer-Encoding: xchunked\r\n", chunked(SOUND))
    yield sent("a body that does not come", 408, b"Content-Length: 500\r\n", SOUND)
    yield sent("chunks that do not end", 408, chunks, chunked(SOUND)[:-5])


def headers() -> Iterator[Case]:
    def sent(name: str, status: int, head: bytes) -> Case:
        return Case(f"head: {name}", Raw(lambda: request(head=HOST + JSON + head + LENGTH)), status)

    yield sent("an id of 10 kB", 200, b"X-Request-Id: " + b"a" * 10_000 + b"\r\n")
    yield sent("an id beyond ASCII", 200, b"X-Request-Id: \xc3\xa9\xff\r\n")
    yield sent("an id with a break", 400, b"X-Request-Id: a\rb: c\r\n")
    yield sent("an id with a header in it", 200, b"X-Request-Id: a%0d%0aSet-Cookie:%20b\r\n")
    yield sent("an id that is empty", 200, b"X-Request-Id:\r\n")
    yield sent("a trace that is none", 200, b"Traceparent: " + b"0" * 9000 + b"\r\n")
    yield sent("a key nobody asked for", 200, b"Authorization: \xff\xfe junk\r\n")
    yield sent("a key of 20 kB", 200, b"Authorization: Bearer " + b"a" * 20_000 + b"\r\n")
    yield sent("a NUL", 400, b"X-A: a\0b\r\n")
    yield sent("no colon", 400, b"X-A\r\n")
    yield sent("a space before the colon", 400, b"X-A : a\r\n")
    yield sent("no name", 400, b": a\r\n")
    yield sent("a name beyond ASCII", 400, b"X-\xc3\xa9: a\r\n")
    yield sent("a folded line", 400, b"X-A: a\r\n b\r\n")
    yield sent("70 kB in one", 400, b"X-A: " + b"a" * 70_000 + b"\r\n")
    yield sent("70 kB in many", 400, b"X-A: aaaaaaaaaaaaaaa\r\n" * 5000)
    yield sent("a forwarded address", 200, b"X-Forwarded-For: 127.0.0.1\r\n")
    yield sent("another host", 200, b"X-Forwarded-Host: " + MARK.encode() + b"\r\n")
    yield sent(
        "a wish to speak HTTP/2",
        200,
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    )
    yield sent("a wish to continue", 200, b"Expect: 100-continue\r\n")
    yield sent("a wish unknown", 200, b"Expect: " + MARK.encode() + b"\r\n")
    yield sent("a range", 200, b"Range: bytes=0-0,-1\r\n")
    yield sent("another method inside", 200, b"X-HTTP-Method-Override: DELETE\r\n")


def paths() -> Iterator[Case]:
    for path, status in [
        (b"//v1/embeddings", 404),
        (b"/v1//embeddings", 404),
        (b"/v1/embeddings/", 404),
        (b"/V1/EMBEDDINGS", 404),
        (b"/v1/embeddings%00", 404),
        (b"/v1/embeddings%20", 404),
        (b"/v1/embeddings;a=b", 404),
        (b"/v1%2fembeddings", 200),
        (b"/v1/%65mbeddings", 200),
        (b"/./v1/embeddings", 404),
        (b"/../v1/embeddings", 404),
        (b"/%2e%2e/%2e%2e/etc/passwd", 404),
        (b"/..%5c..%5cetc", 404),
        (b"/%c0%ae%c0%ae/", 404),
        (b"/%ff%fe", 404),
        (b"/%zz", 404),
        (b"/" + b"a" * 60_000, 404),
        (b"/" + b"../" * 10_000, 404),
        (b"/" + MARK.encode(), 404),
        (b"/v1/embeddings?" + b"a=b&" * 10_000, 200),
        (b"/v1/embeddings?input=" + MARK.encode(), 200),
        (b"http://other/v1/embeddings", 200),
        (b"/docs", 405),
        (b"/metrics", 405),
        (b"/health", 405),
    ]:
        line = b"POST " + path + b" HTTP/1.1"
        name = f"path: {path[:50].decode()} ({len(path)})"
        yield Case(name, Raw(lambda line=line: request(line)), status)
    for path, status in [
        (b"/v1/models/" + MARK.encode(), 404),
        (b"/v1/models/..%2f..%2fetc%2fpasswd", 404),
        (b"/v1/models/%00", 404),
        (b"/v1/models/jinaai/jina-embeddings-v4", 200),
        (b"/openapi.json/" + MARK.encode(), 404),
        (b"/.env", 404),
        (b"/%", 404),
    ]:
        line = b"GET " + path + b" HTTP/1.1"
        name = f"path: GET {path.decode()}"
        yield Case(name, Raw(lambda line=line: request(line, HOST, b"")), status)
    for path in (b"", b"v1/embeddings", b"/v1/\xff", b"/v1/ embeddings", b"/\0"):
        line = b"POST " + path + b" HTTP/1.1"
        yield Case(f"path: no path: {path!r}", Raw(lambda line=line: request(line)), 400)


def methods() -> Iterator[Case]:
    for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "SEARCH"):
        line = f"{method} /v1/embeddings HTTP/1.1".encode()
        yield Case(f"method: {method}", Raw(lambda line=line: request(line)), 405)
    for method in ("post", "JUNK", "A" * 5000, "GET\0", "PRI"):
        line = f"{method} /v1/embeddings HTTP/1.1".encode()
        name = f"method: {method[:9]!a} ({len(method)})"
        yield Case(name, Raw(lambda line=line: request(line)), 400)
    yield Case("method: CONNECT", Raw(lambda: request(b"CONNECT a:443 HTTP/1.1")), 400)


def lines() -> Iterator[Case]:
    for name, data in {
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60,
        "SSH": b"SSH-2.0-OpenSSH_9.0\r\n",
        "Redis": b"*1\r\n$8\r\nFLUSHALL\r\n",
        "zeros": b"\0" * 500,
        "text": MARK.encode() + b"\r\n\r\n",
        "HTTP/9.9": request(b"POST /v1/embeddings HTTP/9.9"),
        "no host of its own": b"GET /health HTTP/1.1 " + MARK.encode() + b"\r\n\r\n",
    }.items():
        yield Case(f"line: {name}", Raw(lambda data=data: data), 400)
    yield Case("line: no version", Raw(lambda: b"GET /health\r\n\r\n"), 200)
