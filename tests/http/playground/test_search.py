"""Searching with a real browser: what is ranked, why, and how it changes."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from serving.http.playground.corpus import read_corpus
from tests.http.documents import picture_pdf
from tests.http.live import MODEL, Live
from tests.http.playground.browser import Visit, Visits
from tests.http.playground.seeing import COLOURS

NUM_PAGES = len(read_corpus()[0].pages)
SHOWN = min(NUM_PAGES, 10)


def picture(*, mark: tuple[int, int, int] | None = None, size: int = 112) -> bytes:
    """White, 4 x 4 patches; `mark` colours the one in the second row and third column."""
    image = Image.new("RGB", (size, size), "white")
    if mark is not None:
        edge = size // 4
        ImageDraw.Draw(image).rectangle((2 * edge, edge, 3 * edge - 1, 2 * edge - 1), fill=mark)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def marked(visit: Visit) -> None:
    """Three pages, each with one patch in the colour of its name."""
    visit.add(*((f"{name}.png", "image/png", picture(mark=COLOURS[name])) for name in COLOURS))
    visit.until_embedded()


def heat(visit: Visit) -> Any:
    """How opaque each patch of the heat map is, from 0 to 255: [row, column]."""
    script = """
    (canvas) => {
      const { width, height } = canvas;
      const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
      copy.drawImage(canvas, 0, 0);
      const { data } = copy.getImageData(0, 0, width, height);
      return [height, width, [...data].filter((_, at) => at % 4 === 3)];
    }
    """
    rows, columns, alpha = visit.page.locator("#heat").evaluate(script)
    return np.array(alpha).reshape(rows, columns)


def test_the_built_in_pages_are_ranked_twice_for_an_example(visits: Visits) -> None:
    visit = visits.open()
    visit.page.get_by_role("group", name="Example queries").get_by_role("button").first.click()
    visit.until_ranked()
    for ranking in ("single", "multi"):
        titles, scores = visit.titles(ranking), list(visit.scores(ranking).values())
        assert len(titles) == SHOWN
        assert scores == sorted(scores, reverse=True)
    announced = visit.page.locator("#announcer")
    assert f"{NUM_PAGES} pages ranked." in announced.inner_text()
    assert visit.titles("multi")[0] in announced.inner_text()
    assert MODEL in visit.text("#served")


def test_the_scores_are_those_of_the_api(visits: Visits, playground: Live) -> None:
    visit = visits.open()
    marked(visit)
    visit.search("o or c")
    documents = [
        {"image": base64.b64encode(picture(mark=COLOURS[name])).decode()} for name in COLOURS
    ]
    body = {
        "model": MODEL,
        "task": "retrieval",
        "query": "o or c",
        "documents": documents,
    }
    results = playground.client.post("/v1/rerank", json=body).json()["results"]
    expected = {f"{list(COLOURS)[one['index']]}.png": one["relevance_score"] for one in results}
    assert visit.scores("multi") == pytest.approx(expected, abs=1e-4)


def test_fewer_dimensions_and_bits_rank_anew_without_a_request(visits: Visits) -> None:
    visit = visits.open()
    visit.use_corpus()
    visit.search("total of the invoice")
    whole = visit.scores("single"), visit.scores("multi")
    asked = visit.posted()
    visit.compare_by("Dimensions of a single vector", "8")
    assert visit.scores("single") != whole[0]
    assert visit.scores("multi") == whole[1]  # multi-vectors have one dimension
    assert "32 bytes" in visit.text("#cost")
    visit.compare_by("Precision of all vectors", "binary")
    # Eight signs differ in a whole number of places.
    assert {score * 4 % 1 for score in visit.scores("single").values()} == {0.0}
    assert visit.scores("multi") != whole[1]
    assert "takes 1 byte," in visit.text("#cost")
    visit.compare_by("Precision of all vectors", "int8")
    visit.compare_by("Dimensions of a single vector", "64")
    # Which pages are shown may differ, where many are nearly alike; what the best of them score does not.
    quantised, best = sorted(visit.scores("single").values()), sorted(whole[0].values())
    assert quantised == pytest.approx(best, abs=0.01)
    assert asked == []


def test_a_token_shows_where_the_page_answers_it(visits: Visits) -> None:
    visit = visits.open()
    marked(visit)
    visit.search("b")
    assert visit.titles("multi")[0] == "b.png"
    assert visit.text("#page-title") == "b.png"
    token = visit.page.get_by_role(
        "button", name="b: most similar, 1.00, in row 2 of 4, column 3 of 4"
    )
    token.hover()
    warm = heat(visit)
    assert warm.shape == (4, 4)
    assert warm[1, 2] == warm.max() > 150
    assert (warm > 0).sum() == 1
    assert "row 2 of 4, column 3 of 4" in visit.text("#heat-says")
    # The keyboard does the same: focus shows, a press keeps.
    visit.page.get_by_role("button", name="Whole query").focus()
    visit.page.keyboard.press("Shift+Tab")
    visit.page.locator("#tokens button").last.focus()
    assert heat(visit)[1, 2] == warm[1, 2]
    visit.page.keyboard.press("Enter")
    assert token.get_attribute("aria-pressed") == "true"
    visit.page.get_by_label("Heat map").focus()
    assert heat(visit)[1, 2] == warm[1, 2]
    visit.page.get_by_label("Heat map").uncheck()
    assert not visit.page.locator("#heat").is_visible()


def test_what_stands_before_every_query_is_told_from_the_query(visits: Visits) -> None:
    visit = visits.open()
    marked(visit)
    visit.search("b")
    tokens = visit.page.locator("#tokens button")
    prefix = visit.page.locator("#tokens button.prefix").all_inner_texts()
    assert "".join(text.split("\n")[0] for text in prefix) == "Query:"
    assert tokens.count() == len(prefix) + 2  # the whole query, and its one token


def test_a_picture_is_searched_by_and_pointed_at(visits: Visits) -> None:
    visit = visits.open()
    marked(visit)
    chosen = {"name": "mine.png", "mimeType": "image/png", "buffer": picture(mark=COLOURS["c"])}
    visit.page.locator("#picture-file").set_input_files([chosen])
    visit.until_ranked()
    assert visit.titles("multi")[0] == visit.titles("single")[0] == "c.png"
    assert visit.scores("multi")["c.png"] == pytest.approx(1, abs=1e-4)
    part = visit.page.locator("#query-patches button")
    part.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        visit.page.keyboard.press(key)
    assert part.get_attribute("aria-label") == "Your picture, row 2 of 4, column 3 of 4"
    assert heat(visit)[1, 2] == heat(visit).max() > 150
    visit.page.get_by_role("button", name="Search by words again").click()
    visit.search("o")
    assert visit.titles("multi")[0] == "o.png"


def test_a_pdfs_pages_are_added_and_ranked(visits: Visits) -> None:
    visit = visits.open()
    pdf = picture_pdf([(255, 255, 255), COLOURS["o"]], size=(56, 56))
    visit.add(("report.pdf", "application/pdf", pdf), ("one.png", "image/png", picture()))
    visit.until_embedded()
    assert "3 pages of your own" in visit.text("#library-says")
    visit.search("o")
    assert visit.titles("multi")[0] == "report.pdf, page 2"


def test_another_task_embeds_the_pages_again(visits: Visits) -> None:
    visit = visits.open()
    marked(visit)
    visit.search("b")
    bodies: list[Any] = []
    visit.page.on("request", lambda request: bodies.append(json.loads(request.post_data or "{}")))
    visit.choose("Task", "code")
    visit.until("#snippet", "code.query")
    assert {body["task"] for body in bodies} == {"code.query", "code.passage"}
    assert visit.titles("multi")[0] == "b.png"
    asked = len(bodies)
    visit.choose("Task", "retrieval")
    visit.until("#snippet", "retrieval.query")
    assert len(bodies) == asked  # both are still known


def test_embedding_is_seen_to_go_on_and_can_be_stopped(visits: Visits) -> None:
    visit = visits.open()
    held: list[Any] = []
    visit.page.route("**/v1/embeddings", lambda route: held.append(route))
    visit.page.get_by_role("button", name="Embed the built-in pages").click()
    visit.until("#progress-says", "embedded")
    assert f"0 of {NUM_PAGES} pages embedded" in visit.text("#progress-says")
    visit.page.get_by_role("button", name="Stop").click()
    visit.page.get_by_role("button", name="Go on").wait_for()
    assert f"{NUM_PAGES} not embedded yet" in visit.text("#library-says")
    visit.page.unroute("**/v1/embeddings")
    visit.page.get_by_role("button", name="Go on").click()
    visit.until_embedded()
    visit.search("agenda")
    assert len(visit.titles("single")) == SHOWN


def test_reading_a_pdf_can_be_stopped_and_leaves_nothing(visits: Visits) -> None:
    visit = visits.open()
    held: list[Any] = []
    visit.page.route("**/playground/pages", lambda route: held.append(route))
    pdf, png = picture_pdf([COLOURS["o"]]), picture()
    files = [("a.pdf", "application/pdf", pdf), ("b.png", "image/png", png)]
    given: Any = [{"name": name, "mimeType": kind, "buffer": body} for name, kind, body in files]
    visit.page.locator("#page-files").set_input_files(given)
    visit.until("#progress-says", "Reading a.pdf")
    visit.page.get_by_role("button", name="Stop").click()
    visit.page.locator("#progress").wait_for(state="hidden")
    assert f"{NUM_PAGES} pages of" in visit.text("#library-says")
    assert not visit.page.locator("#failures").is_visible()
