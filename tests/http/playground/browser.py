"""A real Chromium, and visits to the playground with it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = (
    "--no-sandbox",  # as root it starts in no other way; it opens this server alone
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Where other work has the cores, a page takes this long to be drawn.
_TIMEOUT_MS = 60_000


@contextmanager
def chromium() -> Iterator[Browser]:
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.fail(
            f"The playground's tests need a Chromium, and none of {', '.join(_NAMES)} is on the PATH. "
            "On Debian: sudo apt-get install chromium"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield browser
        browser.close()


class Visits:
    """Opens the page as often as a test asks, and hears what browsers complain of."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url
        self.complaints: list[str] = []

    def open(self, width: int = 1360, height: int = 900, **options: Any) -> "Visit":
        """The page in a fresh browser, with motion reduced unless it is asked for."""
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            **{"reduced_motion": "reduce"} | options,
        )
        context.set_default_timeout(_TIMEOUT_MS)
        page = context.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(f"{error}"))
        visit = Visit(page)
        page.goto(f"{self._url}/playground")
        visit.until_ready()
        return visit

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def close(self) -> None:
        for context in self._browser.contexts:
            context.close()


class Visit:
    """One page, in words of what is done there."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def until_ready(self) -> None:
        """Wait for a page that was just loaded."""
        # What the page cannot take yet is inert, but a browser that is steered would not mind.
        self.page.locator("section[inert]").first.wait_for(state="detached")

    def use_corpus(self) -> None:
        self.page.get_by_role("button", name="Embed the built-in pages").click()
        self.until_embedded()

    def until_embedded(self) -> None:
        self.page.locator("#clear").wait_for()
        self.page.locator("#progress").wait_for(state="hidden")

    def add(self, *files: tuple[str, str, bytes]) -> None:
        """Choose files, each a name, a type and its bytes."""
        given: Sequence[Any] = [
            {"name": name, "mimeType": kind, "buffer": body} for name, kind, body in files
        ]
        self.page.locator("#page-files").set_input_files(given)
        self.page.locator("#progress").wait_for(state="hidden")

    def search(self, text: str) -> None:
        self.page.get_by_label("Query, in words or as a picture").fill(text)
        self.page.get_by_role("button", name="Search", exact=True).click()
        self.until_ranked()

    def until_ranked(self) -> None:
        self.page.locator("#submit[aria-busy=false]").wait_for()
        self.page.locator("#results[aria-busy=false] #ranked-single .card").first.wait_for()

    def until(self, selector: str, text: str) -> None:
        self.page.locator(selector).filter(has_text=text).wait_for()

    def compare_by(self, group: str, value: str) -> None:
        """Choose how pages are compared, and wait until they have been."""
        self.choose(group, value)
        self.page.locator("#results[aria-busy=false]").wait_for()

    def posted(self) -> list[str]:
        """Where bodies are sent to from now on; the list grows."""
        paths: list[str] = []

        def heard(request: Request) -> None:
            if request.method == "POST":
                paths.append(request.url)

        self.page.on("request", heard)
        return paths

    def titles(self, ranking: str) -> list[str]:
        """The pages of the ranking by "single" or "multi", in order."""
        return self.page.locator(f"#ranked-{ranking} .title").all_inner_texts()

    def scores(self, ranking: str) -> dict[str, float]:
        shown = self.page.locator(f"#ranked-{ranking} .score").all_inner_texts()
        numbers = [float(score.replace("\u2212", "-")) for score in shown]
        return dict(zip(self.titles(ranking), numbers, strict=True))

    def choose(self, group: str, value: str) -> None:
        """Press one of the buttons that look like segments."""
        field = self.page.get_by_role("group", name=group)
        field.get_by_role("radio", name=value, exact=True).check()

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()
