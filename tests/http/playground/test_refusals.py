"""What the page says when something is wrong, and that nothing a stranger named becomes markup."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from serving import ServerSettings
from serving.http.caller import UNLIMITED
from serving.http.key_file import add_key, remove_key
from tests.http.documents import encrypted_pdf
from tests.http.live import Live, live_server
from tests.http.playground.browser import Visit, Visits
from tests.http.playground.conftest import MAX_IMAGE_BYTES
from tests.http.playground.seeing import COLOURS
from tests.http.playground.test_search import marked, picture

HOSTILE = '<img src=x onerror="document.title=1">\u202e"\'`${1}</script>'


def failures(visit: Visit) -> list[str]:
    return visit.page.locator("#failure-list li").all_inner_texts()


def noise(size: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((size, size), 200).convert("RGB").save(file, "PNG")
    return file.getvalue()


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(visits: Visits) -> None:
    visit = visits.open()
    asked = visit.posted()
    large = noise(400)
    assert len(large) > MAX_IMAGE_BYTES
    visit.add(("scan.png", "image/png", large))
    (said,) = failures(visit)
    assert said.startswith("scan.png — It has ")
    assert "up to 195.3 KB" in said
    assert "195.3 KB" in visit.text("#limits")
    assert asked == []
    visit.page.get_by_role("button", name="Dismiss").click()
    assert failures(visit) == []


def test_one_bad_file_fails_alone_with_its_reason(visits: Visits) -> None:
    visit = visits.open()
    visit.add(
        ("good.png", "image/png", picture(mark=COLOURS["o"])),
        ("cut.png", "image/png", picture()[:60]),
        ("notes.txt", "text/plain", b"hello"),
        ("empty.png", "image/png", b""),
        ("locked.pdf", "application/pdf", encrypted_pdf(password=b"p")),
        ("fake.pdf", "application/pdf", b"hello"),
        ("also good.png", "image/png", picture(mark=COLOURS["b"])),
    )
    visit.until_embedded()
    reasons = dict(line.split(" — ", 1) for line in failures(visit))
    assert set(reasons) == {"cut.png", "notes.txt", "empty.png", "locked.pdf", "fake.pdf"}
    assert "password" in reasons["locked.pdf"]
    assert "not a PDF" in reasons["fake.pdf"]
    assert "text/plain" in reasons["notes.txt"]
    assert re.search("decoded|damaged|image", reasons["cut.png"])
    assert visit.text("#failures-title") == "5 files could not be added"
    visit.search("o")
    assert visit.titles("multi") == ["good.png", "also good.png"]
    # That the server refused is not this page's mistake, though the browser's console says so.
    visits.complaints[:] = [one for one in visits.complaints if " 422 " not in one]


def test_hostile_names_and_queries_stay_text(visits: Visits) -> None:
    visit = visits.open()
    visit.add(
        (f"{HOSTILE}.png", "image/png", picture(mark=COLOURS["o"])),
        (f"{HOSTILE}.txt", "text/plain", b"hello"),
    )
    visit.until_embedded()
    visit.search(HOSTILE)
    assert visit.titles("single")[0].startswith("<img src=x onerror=")
    assert HOSTILE in failures(visit)[0]
    assert HOSTILE in visit.text("#page-title")
    assert visit.page.title() == "polyvec playground"
    assert visit.page.locator("img[src=x]").count() == 0
    assert visit.page.locator("script").count() == 1


def test_the_browser_itself_refuses_markup_and_foreign_scripts(visits: Visits) -> None:
    visit = visits.open()
    refused = visit.page.evaluate(
        """
        async () => {
          const refused = [];
          document.addEventListener("securitypolicyviolation", (event) =>
            refused.push(event.effectiveDirective));
          try { document.body.innerHTML = "<b>a</b>"; } catch { refused.push("markup"); }
          try { await fetch("https://example.com/"); } catch { refused.push("fetch"); }
          const image = document.createElement("img");
          image.src = "https://example.com/a.png";
          document.body.append(image);
          await new Promise((resolve) => setTimeout(resolve, 300));
          return refused;
        }
        """
    )
    assert {"markup", "fetch", "connect-src", "img-src"} <= set(refused)
    assert visits.complaints
    visits.complaints.clear()


def test_a_search_without_pages_or_words_says_what_to_do(visits: Visits) -> None:
    visit = visits.open()
    visit.page.get_by_role("button", name="Search", exact=True).click()
    assert visit.text("#announcer") == "Type a query first."
    visit.page.get_by_label("Query, in words or as a picture").fill("a")
    visit.page.keyboard.press("Enter")
    visit.page.get_by_role("alert").filter(has_text="There are no pages yet").wait_for()
    chosen = {"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"}
    visit.page.locator("#picture-file").set_input_files([chosen])
    visit.page.get_by_role("alert").filter(has_text="a.txt cannot be searched by").wait_for()


def test_a_server_that_is_busy_is_asked_again(visits: Visits) -> None:
    visit = visits.open()
    refusals = [{"status": 503, "headers": {"Retry-After": "1"}, "body": "{}"}] * 2

    def answer(route: Any) -> None:
        route.fulfill(**refusals.pop()) if refusals else route.continue_()

    visit.page.route("**/v1/embeddings", answer)
    marked(visit)
    assert refusals == []
    visit.search("c")
    assert visit.titles("multi")[0] == "c.png"
    visits.complaints[:] = [one for one in visits.complaints if " 503 " not in one]


def test_a_server_that_is_gone_is_named(visits: Visits) -> None:
    visit = visits.open()
    visit.page.route("**/v1/embeddings", lambda route: route.abort())
    visit.add(("a.png", "image/png", picture()))
    visit.page.get_by_role("alert").filter(has_text="The server does not answer").wait_for()
    assert visit.page.get_by_role("button", name="Go on").is_visible()
    visits.complaints.clear()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def locked(merged_float32: Path, keys: Path) -> Iterator[tuple[Live, str]]:
    key = add_key(keys, "visitor", UNLIMITED)
    add_key(keys, "another", UNLIMITED)
    with live_server(merged_float32, ServerSettings(port=0, playground=True, keys=keys)) as live:
        yield live, key


def signed_in(key: str) -> dict[str, Any]:
    return {"http_credentials": {"username": "me", "password": key}}


def test_a_wrong_key_is_told_by_a_page(browser: Browser, locked: tuple[Live, str]) -> None:
    complaints: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    wrong = base64.b64encode(b"me:pv-wrong").decode()
    asked: list[dict[str, str]] = [{}, {"Authorization": f"Basic {wrong}"}]

    def without_question(route: Any) -> None:
        """As for someone who closes the browser's question for a key; without a window none can be asked."""
        answer = route.fetch(headers=route.request.headers | asked[0])
        headers = answer.headers
        assert headers.pop("www-authenticate").startswith("Basic")
        route.fulfill(response=answer, headers=headers)

    page.route("**/playground", without_question)
    for _ in range(len(asked)):
        page.goto(f"{locked[0].url}/playground")
        assert page.get_by_role("heading").inner_text() == "This page wants an API key"
        assert "any user name" in page.locator("main").inner_text()
        assert ("not known here" in page.locator("main").inner_text()) == bool(asked[0])
        asked.reverse()
    page.close()
    assert all("401" in complaint for complaint in complaints)


def test_the_pages_key_is_good_for_everything_until_it_is_removed(
    browser: Browser, locked: tuple[Live, str], keys: Path
) -> None:
    live, key = locked
    visits = Visits(browser, live.url)
    visit = visits.open(**signed_in(key))
    visit.use_corpus()
    visit.search("a")
    assert "Authorization: Bearer $POLYVEC_API_KEY" in visit.text("#snippet")
    assert key not in visit.page.content()
    assert visits.complaints == []
    remove_key(keys, "visitor")
    visit.page.wait_for_timeout(1200)  # the file is looked at once a second
    visit.page.get_by_label("Query, in words or as a picture").fill("b")
    visit.page.keyboard.press("Enter")
    visit.page.get_by_role("alert").filter(has_text="no longer takes the key").wait_for()
    visits.close()


def test_a_task_without_multi_vectors_is_ranked_by_single_vectors(visits: Visits) -> None:
    visit = visits.open()
    visit.page.route(
        "**/playground/config",
        lambda route: route.fulfill(json=_without_multi(route.fetch().json())),
    )
    visit.page.reload()
    visit.until_ready()
    marked(visit)
    visit.search("b")
    assert len(visit.titles("single")) == 3
    assert visit.titles("multi") == []
    assert "one vector a page" in visit.text("#multi-hint")
    assert not visit.page.locator("#heat").is_visible()


def _without_multi(config: Any) -> Any:
    for task in config["tasks"]:
        task["multivector_dimensions"] = None
    return config


def test_what_the_page_cannot_take_yet_cannot_be_clicked(visits: Visits) -> None:
    visit = visits.open()
    held: list[Any] = []
    visit.page.route("**/playground/config", lambda route: held.append(route))
    visit.page.reload()
    button = visit.page.get_by_role("button", name="Embed the built-in pages", include_hidden=True)
    button.wait_for()
    inert = visit.page.locator("section[inert]")
    assert {section.get_attribute("id") for section in inert.all()} == {
        "ask",
        "library",
        "settings",
    }
    with pytest.raises(PlaywrightTimeoutError):
        button.click(timeout=500)
    (route,) = held
    route.continue_()
    inert.first.wait_for(state="detached")
    visit.use_corpus()
