"""What pages of other sites may ask for and read, as browsers tell of them."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from serving import ServerSettings
from serving.http.caller import UNLIMITED
from serving.http.key_file import add_key
from tests.http.live import MODEL, Live, live_server

PAGE = "https://app.example.com"
BODY = {"model": MODEL, "task": "retrieval.query", "input": ["hello"]}
FROM_PAGE = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return path, add_key(path, "page", UNLIMITED)


@pytest.fixture(scope="module")
def guarded(merged_float32: Path, key_file: tuple[Path, str]) -> Iterator[Live]:
    settings = ServerSettings(port=0, keys=key_file[0], cors_origins=(PAGE,))
    with live_server(merged_float32, settings) as live:
        yield live


def asked(live: Live, origin: str) -> httpx.Response:
    """What a browser asks before it sends JSON or a key."""
    return live.client.options(
        "/v1/embeddings",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )


def test_a_named_page_asks_without_a_key_and_calls_with_one(
    guarded: Live, key_file: tuple[Path, str]
) -> None:
    may = asked(guarded, PAGE)
    assert may.status_code == 200
    assert may.headers["access-control-allow-origin"] == PAGE
    assert "POST" in may.headers["access-control-allow-methods"]
    assert {"authorization", "content-type"} <= set(
        may.headers["access-control-allow-headers"].replace(" ", "").lower().split(",")
    )
    headers = {**FROM_PAGE, "Authorization": f"Bearer {key_file[1]}"}
    answer = guarded.client.post("/v1/embeddings", json=BODY, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["data"][0]["embedding"]
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-expose-headers"] == "*"
    # A password that the browser holds is not the page's.
    assert "access-control-allow-credentials" not in answer.headers


def test_a_named_page_can_read_errors(guarded: Live) -> None:
    answer = guarded.client.post("/v1/embeddings", json=BODY, headers=FROM_PAGE)
    assert (answer.status_code, answer.json()["code"]) == (401, "AUTH_MISSING_API_KEY")
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_a_named_page_cannot_spend_the_key_that_a_browser_holds(
    guarded: Live, key_file: tuple[Path, str]
) -> None:
    held = base64.b64encode(f"me:{key_file[1]}".encode()).decode()
    headers = {**FROM_PAGE, "Authorization": f"Basic {held}"}
    answer = guarded.client.post("/v1/embeddings", json=BODY, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "CROSS_SITE_REQUEST")


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.org",
        "null",
    ],
)
def test_other_pages_are_not_allowed(guarded: Live, origin: str) -> None:
    assert "access-control-allow-origin" not in asked(guarded, origin).headers
    answer = guarded.client.post("/v1/embeddings", json=BODY, headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_without_origins_no_page_is_allowed(live: Live) -> None:
    for response in (
        asked(live, PAGE),
        live.client.post("/v1/embeddings", json=BODY, headers=FROM_PAGE),
    ):
        assert not [name for name in response.headers if name.startswith("access-control-")]


def sent_unasked(live: Live, **headers: str) -> httpx.Response:
    """What a page can send anywhere without asking first, as a Blob without a type: no key, not JSON by name."""
    content = json.dumps(BODY).encode()
    request = live.client.build_request("POST", "/v1/embeddings", content=content, headers=headers)
    assert "content-type" not in request.headers
    return live.client.send(request)


def test_a_server_without_keys_is_not_used_by_pages_of_other_sites(live: Live) -> None:
    refused = sent_unasked(live, **FROM_PAGE)
    assert (refused.status_code, refused.json()["code"]) == (403, "CROSS_SITE_REQUEST")
    assert "--cors-origins" in refused.json()["detail"]
    for site in ("same-origin", "same-site", "none"):
        assert sent_unasked(live, **{"Sec-Fetch-Site": site}).status_code == 200
    # No browser.
    assert sent_unasked(live).status_code == 200
    # A gateway has been asked, and has said yes.
    assert live.client.post("/v1/embeddings", json=BODY, headers=FROM_PAGE).status_code == 200


@pytest.mark.parametrize("origins", [(PAGE,), ("*",)])
def test_named_pages_use_a_server_without_keys(
    merged_float32: Path, origins: tuple[str, ...]
) -> None:
    with live_server(merged_float32, ServerSettings(port=0, cors_origins=origins)) as live:
        assert sent_unasked(live, **FROM_PAGE).status_code == 200
        allowed = asked(live, PAGE).headers["access-control-allow-origin"]
        assert allowed == (PAGE if PAGE in origins else "*")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("https://App.Example.com", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("*", "*"),
    ],
)
def test_origins_are_read_as_browsers_spell_them(given: str, read: str) -> None:
    assert ServerSettings(cors_origins=(given,)).cors_origins == (read,)


@pytest.mark.parametrize(
    "wrong", ["app.example.com", "https://app.example.com/", "ftp://a.b", "https://*.a.b", "null"]
)
def test_what_is_no_origin_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(ValidationError, match="is no origin") as caught:
        ServerSettings(cors_origins=(wrong,))
    assert repr(wrong) in str(caught.value)
