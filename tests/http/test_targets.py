import pytest

from serving.errors import InputError, SettingsError
from serving.http.targets import AllowedHosts, read_target, redirected

ANY = AllowedHosts.parse(())
LISTED = AllowedHosts.parse(
    ("Example.com", "*.FILES.net.", "127.0.0.1", "bücher.de", "2606:4700::1")
)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "Only http and https"),
        ("ftp://example.com/x", "Only http and https"),
        ("gopher://example.com/x", "Only http and https"),
        ("data:image/png;base64,AAAA", "Only http and https"),
        ("//example.com/x", "Only http and https"),
        ("/etc/passwd", "Only http and https"),
        ("", "Only http and https"),
        ("http://user:secret@example.com/", "user name or password"),
        ("http://example.com@127.0.0.1/", "user name or password"),
        ("http://example.com\\@127.0.0.1/", "user name or password"),
        ("http://example.com%5c@127.0.0.1/", "user name or password"),
        ("http:///x", "not a host name"),
        ("http:/example.com", "not a host name"),
        ("http://exa mple.com/", "not a host name"),
        ("http://example.com\\.evil.org/", "not a host name"),
        ("http://%31%32%37.0.0.1/", "not a host name"),
        ("http://a..b/", "not a host name"),
        ("http://.example.com/", "not a host name"),
        (f"http://{'a' * 64}.com/", "not a host name"),
        (f"http://{'a.' * 150}com/", "not a host name"),
        ("http://*.example.com/", "not a host name"),
        ("http://2130706433/", "four decimal parts"),
        ("http://0x7f000001/", "four decimal parts"),
        ("http://0x7f.0.0.1/", "four decimal parts"),
        ("http://127.1/", "four decimal parts"),
        ("http://127.0.1/", "four decimal parts"),
        ("http://017700000001/", "four decimal parts"),
        ("http://127.0.0.0x1/", "four decimal parts"),
        ("http://[fe80::1%25eth0]/", "zone"),
        ("http://0177.0.0.1/", "cannot be read"),
        ("http://127.0.0.256/", "cannot be read"),
        ("http://\uff11\uff12\uff17.0.0.1/", "cannot be read"),
        ("http://[::1/", "not"),
        ("http://[127.0.0.1]/", "cannot be read"),
        ("http://example.com:http/", "cannot be read"),
        ("http://example.com/\r\nX: y", "cannot be read"),
        ("http://example.com/\ud800", "cannot be read"),
        ("http://\ud800.com/", "cannot be read"),
        ("http://example.com:0/", "port 0"),
        ("http://example.com:65536/", "port 65536"),
        ("http://example.com/" + "x" * 9000, "characters"),
    ],
)
def test_a_url_that_is_not_plainly_http_is_refused(url: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        read_target(url, ANY)
    assert why in caught.value.reason
    assert "secret" not in caught.value.reason


@pytest.mark.parametrize(
    ("url", "host", "port", "clean"),
    [
        ("HTTP://Example.COM./a b#c", "example.com", 80, "http://example.com/a%20b"),
        (
            "https://a_b.example.com:8443/?q=1",
            "a_b.example.com",
            8443,
            "https://a_b.example.com:8443/?q=1",
        ),
        ("https://example.com:443/", "example.com", 443, "https://example.com/"),
        ("http://bücher.de/ü", "xn--bcher-kva.de", 80, "http://xn--bcher-kva.de/%C3%BC"),
        ("http://[2606:4700:0:0::1]:1/", "2606:4700::1", 1, "http://[2606:4700::1]:1/"),
        ("http://8.8.8.8/", "8.8.8.8", 80, "http://8.8.8.8/"),
        ("http://8.8.8.8.nip.io/", "8.8.8.8.nip.io", 80, "http://8.8.8.8.nip.io/"),
    ],
)
def test_a_url_is_read_once_into_the_parts_that_are_used(
    url: str, host: str, port: int, clean: str
) -> None:
    target = read_target(url, ANY)
    assert (target.host, target.port, str(target.url)) == (host, port, clean)


@pytest.mark.parametrize(
    "host",
    [
        "example.com.evil.org",
        "evilexample.com",
        "example.com-evil.org",
        "evil.org",
        "sub.example.com",
        "files.net",
        "evilfiles.net",
        "files.net.evil.org",
        "xn--e1afmkfd.com",
        "127.0.0.2",
        "[2606:4700::2]",
    ],
)
def test_a_host_that_is_not_listed_is_refused(host: str) -> None:
    with pytest.raises(InputError, match="is not among"):
        read_target(f"http://{host}/", LISTED)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "EXAMPLE.com.",
        "a.files.net",
        "a.b.Files.net",
        "bücher.de",
        "xn--bcher-kva.de",
        "127.0.0.1",
        "[2606:4700:0::1]",
    ],
)
def test_a_listed_host_is_taken_however_it_is_spelled(host: str) -> None:
    assert read_target(f"http://{host}/", LISTED).url.path == "/"


@pytest.mark.parametrize(
    "entry",
    ["http://example.com", "example.com:80", "example.com/x", "*", "a@b.com", "", "*.*.com"],
)
def test_an_entry_that_could_never_match_is_refused_at_the_start(entry: str) -> None:
    with pytest.raises(SettingsError, match="fetch_hosts"):
        AllowedHosts.parse((entry,))


def test_a_redirect_to_a_host_that_is_not_listed_is_refused() -> None:
    first = read_target("http://example.com/a", LISTED)
    assert str(redirected(first, "b", LISTED).url) == "http://example.com/b"
    with pytest.raises(InputError, match=r"evil\.org is not among"):
        redirected(first, "//evil.org/", LISTED)
