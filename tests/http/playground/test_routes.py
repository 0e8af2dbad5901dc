"""The playground's routes without a browser: who gets them, with which headers, and what they refuse."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import ServerSettings
from serving.engine.fake import FakeEngine
from serving.http.caller import UNLIMITED, Limits
from serving.http.key_file import add_key
from serving.http.playground.assets import STATIC_DIRECTORY
from serving.http.playground.corpus import read_corpus
from serving.manifest import find_tasks
from tests.http.documents import encrypted_pdf, picture_pdf
from tests.http.live import MODEL, Live, live_server

PATHS = ("/playground", "/playground/config", "/playground/app.js", "/playground/corpus/{picture}")


def paths() -> list[str]:
    picture = read_corpus()[0].pages[0].file
    return [path.format(picture=picture) for path in PATHS]


def rendered(live: Live, pdf: bytes, **options: Any) -> httpx.Response:
    body = {"pdf": base64.b64encode(pdf).decode()}
    return live.client.post("/playground/pages", json=body, **options)


@pytest.fixture(scope="module")
def guarded(merged_float32: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """With keys, one of them good for one request a minute, and one task alone."""
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    settings = ServerSettings(port=0, playground=True, keys=keys, max_pdf_pages=2)
    key = add_key(keys, "tester", UNLIMITED)
    slow = add_key(keys, "slow", Limits(requests_per_minute=1))
    engines = {"code": FakeEngine(find_tasks(merged_float32)["code"])}
    with live_server(merged_float32, settings, engines) as live:
        live.client.headers["X-Key"], live.client.headers["X-Slow"] = key, slow
        yield live


def bearer(live: Live, name: str = "X-Key") -> dict[str, str]:
    return {"Authorization": f"Bearer {live.client.headers[name]}"}


def test_a_server_has_no_playground_unless_it_is_asked_for(live: Live) -> None:
    for path in paths():
        assert live.client.get(path).status_code == 404
    assert rendered(live, picture_pdf([(1, 2, 3)])).status_code == 404


def test_every_file_comes_with_its_type_and_may_load_nothing_from_elsewhere(
    playground: Live,
) -> None:
    types = {
        ".html": "text/html",
        ".css": "text/css",
        ".js": "text/javascript",
        ".svg": "image/svg",
    }
    names = [path.name for path in STATIC_DIRECTORY.iterdir()]
    assert len(names) > 10
    for name in names:
        path = "/playground" if name == "index.html" else f"/playground/{name}"
        answer = playground.client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].startswith(types[Path(name).suffix])
        policy = dict(
            part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
        )
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert not re.search("unsafe|http|data:", str(policy))
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_files_name_no_other_host_and_write_no_markup() -> None:
    for path in STATIC_DIRECTORY.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(src|href|import|url)\W{1,4}(https?:)?//", text), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r'\son\w+="|style="|<style', text), path.name
        assert len(text.splitlines()) < 400, path.name


def test_the_server_describes_itself_to_the_page(playground: Live) -> None:
    config = playground.client.get("/playground/config").json()
    assert config["model"] == MODEL
    assert not config["needs_key"]
    tasks = {task["name"]: task for task in config["tasks"]}
    assert set(tasks) == {"retrieval", "text-matching", "code"}
    assert tasks["retrieval"]["query"] == "retrieval.query"
    assert tasks["retrieval"]["passage"] == "retrieval.passage"
    assert tasks["text-matching"]["query"] == tasks["text-matching"]["passage"] == "text-matching"
    assert tasks["retrieval"]["query_prefix"] == "Query: "
    assert tasks["code"]["dimensions"] == [8, 16, 32, 64]
    assert config["limits"]["max_image_bytes"] == 200_000
    for task in config["tasks"]:
        for side in (task["query"], task["passage"]):
            body = {"model": config["model"], "task": side, "input": "a"}
            assert playground.client.post("/v1/embeddings", json=body).status_code == 200


def test_one_task_alone_is_described_alone(guarded: Live) -> None:
    config = guarded.client.get("/playground/config", headers=bearer(guarded)).json()
    assert [task["name"] for task in config["tasks"]] == ["code"]
    assert config["needs_key"]


def test_a_pdfs_pages_are_the_pictures_that_the_api_embeds(playground: Live) -> None:
    pdf = picture_pdf([(220, 30, 30), (40, 60, 210)], size=(112, 56))
    answer = rendered(playground, pdf)
    assert answer.headers["content-type"] == "application/json"
    pages = answer.json()["pages"]
    assert len(pages) == 2
    of_pages, of_pdf = (
        playground.client.post(
            "/v1/embeddings", json={"model": MODEL, "task": "retrieval.passage", "input": given}
        ).json()["data"]
        for given in (
            [{"image": page} for page in pages],
            {"pdf": base64.b64encode(pdf).decode()},
        )
    )
    assert [item["embedding"] for item in of_pages] == [item["embedding"] for item in of_pdf]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 422, "empty"),
        (b"{}", 422, "Field required"),
        (b'{"pdf": 3}', 422, "string"),
        (b'{"pdf": "***"}', 422, "base64"),
        (b'{"pdf": "aGVsbG8="}', 422, "not a PDF"),
    ],
)
def test_what_is_no_pdf_is_refused_by_name(
    playground: Live, body: bytes, status: int, said: str
) -> None:
    answer = playground.client.post("/playground/pages", content=body)
    assert answer.status_code == status
    assert said in answer.json()["detail"]
    assert answer.json()["errors"][0]["field"] in {"pdf", "body"}


def test_a_pdf_is_held_to_the_servers_limits(guarded: Live) -> None:
    three = rendered(guarded, picture_pdf([(1, 2, 3)] * 3), headers=bearer(guarded))
    assert (three.status_code, "at most 2" in three.json()["detail"]) == (422, True)
    locked = rendered(guarded, encrypted_pdf(password=b"p"), headers=bearer(guarded))
    assert (locked.status_code, "password" in locked.json()["detail"]) == (422, True)


def test_every_path_wants_the_key_that_the_api_wants(guarded: Live) -> None:
    for path in paths():
        assert guarded.client.get(path).status_code == 401, path
        assert guarded.client.get(path, headers=bearer(guarded)).status_code == 200
    pdf = picture_pdf([(1, 2, 3)])
    assert rendered(guarded, pdf).status_code == 401
    # The page's requests are counted as everybody's; a second one within the minute is one too many.
    first = rendered(guarded, pdf, headers=bearer(guarded, "X-Slow"))
    assert first.status_code == 200
    assert first.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_browser_is_asked_for_the_key_and_shown_a_page_without_it(guarded: Live) -> None:
    html = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    answer = guarded.client.get("/playground", headers=html)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (
        401,
        'Basic realm="polyvec"',
    )
    assert answer.headers["content-type"].startswith("text/html")
    assert "any user name" in answer.text
    assert "unsafe" not in answer.headers["content-security-policy"]
    wrong = guarded.client.get("/playground", headers=html, auth=("me", "<i>wrong</i>"))
    assert "not known here" in wrong.text
    assert "<i>" not in wrong.text
    # Programs get what they always got.
    assert guarded.client.get("/playground").json()["code"] == "AUTH_MISSING_API_KEY"
    assert guarded.client.get("/docs", headers=html).status_code == 401


def test_a_slash_too_many_leads_to_the_page(guarded: Live) -> None:
    answer = guarded.client.get("/playground/")
    assert answer.status_code == 308
    assert httpx.URL(f"{guarded.url}/playground/").join(answer.headers["location"]).path == (
        "/playground"
    )


def test_metrics_and_logs_know_the_paths_and_not_the_files(playground: Live) -> None:
    for path in paths():
        playground.client.get(path)
    playground.client.get("/playground/nothing.js")
    metrics = playground.client.get("/metrics").text
    routes = set(re.findall(r'polyvec_requests_total{route="([^"]+)"', metrics))
    assert {"/playground", "/playground/config", "/playground/{file}", "other"} <= routes
    assert not any("app.js" in route or "corpus" in route for route in routes)
