"""URLs that lead where no server may go. None is ever connected to."""

from collections.abc import Iterator

from tests.http.hostile.case import MARK, Case, embed

FORBIDDEN = (
    "http://127.0.0.1/",
    "http://127.0.0.1:{port}/health",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://127.0.0.1./",
    "http://127.255.255.254/",
    "http://0.0.0.0/",
    "http://0/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/",
    "http://[ff02::1]/",
    "http://localhost/",
    "http://LOCALHOST./",
    "http://a.localhost/",
    "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
    "http://127。0。0。1/",
    "http://①②⑦.⓪.⓪.①/",
    "http://ⓛocalhost/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://metadata.google.internal/",
    "http://100.64.0.1/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://user:{mark}@example.com/",
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1#@example.com/",
    "http://127.0.0.1\\@example.com/",
    "http://127.0.0.1%2f@example.com/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:-1/",
    "http://example.com:99999999999/",
    "http://example.com:{mark}/",
    "http:///etc/passwd",
    "http://",
    "https://",
    "https:///",
    "http://.",
    "http://..",
    "http://%00/",
    "http://a\tb/",
    "http://a b/",
    "http://a\r\nHost: 127.0.0.1\r\n\r\n/",
    "http://[/",
    "http://[]/",
    "http://[::1/",
    "http://" + "a" * 64 + ".example/",
    "http://" + "a." * 200 + "example/",
    "http://xn--zzzzzzzz-zz/",
    "http://\u202eelpmaxe\u202c/",
    "http://$(id)/",
    "http://example.invalid/{mark}",
    "https://example.invalid/{mark}?{mark}#{mark}",
)

NO_HTTP = (
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "ftp://127.0.0.1/a.png",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "dict://127.0.0.1:11211/stat",
    "ldap://127.0.0.1/",
    "jar:http://127.0.0.1!/a",
    "unix:///var/run/docker.sock",
    "ws://127.0.0.1/",
    "s3://bucket/{mark}",
    "javascript:{mark}",
    "data:text/html;base64,AAAA",
    "data:image/png,{mark}",
    "//127.0.0.1/",
    "/etc/passwd",
    "http:127.0.0.1",
    "http:/127.0.0.1",
    "",
)


def cases(port: int) -> Iterator[Case]:
    for number, url in enumerate((*FORBIDDEN, "http://example.invalid/" + "a" * 8200)):
        given = url.replace("{port}", str(port)).replace("{mark}", MARK)
        kind = ({"url": given}, {"image": given}, {"image_url": {"url": given}})[number % 3]
        yield embed(f"url: {ascii(url)[:60]}", 422, input=[kind])
    for url in NO_HTTP:
        given = url.replace("{mark}", MARK)
        yield embed(f"url: no http: {url}", 422, input=[{"url": given}], where="input.0.url")
        yield embed(f"url: as an image: {url}", 422, input=[{"image": given}])
    for url in FORBIDDEN[:3] + NO_HTTP[:3]:
        given = url.replace("{port}", str(port))
        yield embed(f"url: as a PDF: {url}", 422, input={"pdf": given})
