"""A Chromium for this directory and a server with a playground for the whole run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from serving import ServerSettings
from serving.manifest import find_tasks
from tests.http.live import Live, live_server
from tests.http.playground.browser import Visits, chromium
from tests.http.playground.seeing import SeeingEngine

MAX_IMAGE_BYTES = 200_000


# Not for the session: while it is open, Playwright's event loop runs in this thread, and no other could.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def playground(merged_float32: Path) -> Iterator[Live]:
    """Engines that see colours, all tasks, no keys, and room for small pictures only."""
    settings = ServerSettings(port=0, playground=True, max_image_bytes=MAX_IMAGE_BYTES)
    engines = {
        task: SeeingEngine(path, settings) for task, path in find_tasks(merged_float32).items()
    }
    with live_server(merged_float32, settings, engines) as live:
        yield live


@pytest.fixture
def visits(browser: Browser, playground: Live) -> Iterator[Visits]:
    """Opens the page; at the end no visit may have complained in the console."""
    visits = Visits(browser, playground.url)
    yield visits
    visits.close()
    assert visits.complaints == []
