"""The code that the page offers is run, and finds what the page shows."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from serving.http.playground.corpus import CORPUS_DIRECTORY
from tests.http.documents import picture_pdf
from tests.http.playground.browser import Visit, Visits
from tests.http.playground.seeing import COLOURS
from tests.http.playground.test_search import picture

QUERY = 'what\'s "red", r or $HOME?\nb\\n'
NAMES = ("it's $r.png", "b.png")


@pytest.fixture
def visit(visits: Visits, tmp_path: Path) -> Iterator[Visit]:
    """Two pictures and a PDF with names that have to be quoted; the files lie in `tmp_path`."""
    visit = visits.open()
    bodies = {name: picture(mark=COLOURS[word]) for name, word in zip(NAMES, "ob", strict=True)}
    pdf = picture_pdf([(255, 255, 255), COLOURS["c"]], size=(56, 56))
    for name, body in {**bodies, "two pages.pdf": pdf}.items():
        (tmp_path / name).write_bytes(body)
    visit.add(
        *((name, "image/png", body) for name, body in bodies.items()),
        ("two pages.pdf", "application/pdf", pdf),
    )
    visit.until_embedded()
    visit.search(QUERY)
    return visit


def code(visit: Visit, language: str) -> str:
    visit.choose("Language", language)
    return visit.page.locator("#snippet").text_content() or ""


def run(command: list[str], directory: Path) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "NO_PROXY": "*"}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def printed(output: str) -> dict[str, dict[str, float]]:
    """The scores under each heading."""
    found: dict[str, dict[str, float]] = {}
    for line in output.splitlines():
        if not line.startswith("  "):
            scores = found.setdefault(line.split(",")[0], {})
            continue
        score, name = line.split(maxsplit=1)
        scores[name] = float(score)
    return found


@pytest.mark.parametrize("precision", ["float32", "int8", "binary"])
def test_the_python_finds_the_scores_of_the_page(
    visit: Visit, tmp_path: Path, precision: str
) -> None:
    visit.compare_by("Dimensions of a single vector", "32")
    if precision != "float32":
        visit.compare_by("Precision of all vectors", precision)
    (tmp_path / "search.py").write_text(code(visit, "Python"), encoding="utf-8")
    found = printed(run([sys.executable, "search.py"], tmp_path))
    assert found["Single vector"] == pytest.approx(visit.scores("single"), abs=2e-4)
    assert found["MaxSim"] == pytest.approx(visit.scores("multi"), abs=2e-4)
    assert len(found["MaxSim"]) == 4


def answers(output: str) -> list[Any]:
    """The JSON documents in what curl printed, one after the other."""
    return [orjson.loads(part + "}") for part in output.split("}\n") if part.strip()]


def test_the_curl_commands_get_the_vectors(visit: Visit, tmp_path: Path) -> None:
    visit.compare_by("Precision of all vectors", "int8")
    # curl ends an answer without a line break.
    script = code(visit, "curl").replace("curl '", "curl -sS -w '\\n' '")
    (tmp_path / "search.sh").write_text(script, encoding="utf-8")
    single, multi, page = answers(run(["bash", "search.sh"], tmp_path))
    assert len(single["data"][0]["embedding"]) == 64
    assert len(multi["data"][0]["embeddings"][0]) == 32
    assert "scale" in page["data"][0]


def test_the_code_is_copied(visits: Visits, visit: Visit) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.page.get_by_role("button", name="Copy").click()
    visit.page.get_by_role("button", name="Copied").wait_for()
    assert visit.page.evaluate("navigator.clipboard.readText()") == code(visit, "curl")


def test_the_files_of_the_corpus_are_named_as_they_are_called(visits: Visits) -> None:
    visit = visits.open()
    visit.use_corpus()
    visit.search("a")
    first = sorted(path.name for path in CORPUS_DIRECTORY.glob("*.png"))[0]
    assert f'"{first}"' in code(visit, "Python")
