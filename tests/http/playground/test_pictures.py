"""The README's pictures: what a visitor sees after a search, drawn by the page itself.

`make screenshots` writes them, of the merged checkpoints in `MODELS` where it is given: the server is then
the real one, and its engines are too. Without it they are drawn over computable engines and thrown away.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser

from tests.http.live import Live
from tests.http.playground.browser import Visit, Visits

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
MODELS, WRITES = os.environ.get("MODELS"), bool(os.environ.get("SCREENSHOTS"))
# Of the example queries, the one whose page says most.
EXAMPLE = int(os.environ.get("EXAMPLE", "0"))


@contextmanager
def served(models: str) -> Iterator[str]:
    """`polyvec serve --playground` with its real engines; its URL."""
    command = [sys.executable, "-m", "polyvec", "serve", models, "--playground", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("Or search in a browser: "):
                    yield line.split()[5].removesuffix("/playground")
                    break
            else:
                pytest.fail(f"polyvec serve {models} ended with status {process.wait()}.")
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if MODELS is not None:
        with served(MODELS) as url:
            yield url
    else:
        live: Live = request.getfixturevalue("playground")
        yield live.url


def searched(visit: Visit) -> None:
    """An example query over the built-in corpus, with the heat map of its last word."""
    visit.page.locator("#examples button").nth(EXAMPLE).click()
    visit.until_ranked()
    visit.page.locator("#tokens button.token:not(.prefix):has(small)").last.click()


@pytest.mark.parametrize(
    ("name", "width", "height", "scheme"),
    [
        ("playground-light.png", 1360, 1480, "light"),
        ("playground-dark.png", 1360, 1480, "dark"),
        ("playground-phone.png", 390, 844, "light"),
    ],
)
def test_the_pictures_of_the_readme(
    browser: Browser, url: str, tmp_path: Path, name: str, width: int, height: int, scheme: str
) -> None:
    visits = Visits(browser, url)
    visit = visits.open(width, height, color_scheme=scheme, device_scale_factor=2)
    if width < 500:
        visit.page.locator("#examples button").nth(EXAMPLE).click()
        visit.until_ranked()
        visit.choose("Ranking shown", "MaxSim")
        visit.page.locator("#ranked-multi .card").first.click()
        visit.page.locator("#tokens button.token:not(.prefix):has(small)").first.click()
    else:
        searched(visit)
    directory = PICTURES if WRITES else tmp_path
    directory.mkdir(parents=True, exist_ok=True)
    visit.page.mouse.move(0, 0)
    visit.page.wait_for_timeout(500)
    visit.page.screenshot(path=directory / name)
    visits.close()
    assert visits.complaints == []
    # Drawings of few colours, which a reader of the README downloads.
    with Image.open(directory / name) as picture:
        assert picture.size == (2 * width, 2 * height)
        picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(
            directory / name, optimize=True
        )
    assert (directory / name).stat().st_size < 700_000
