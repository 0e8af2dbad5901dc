"""How the page looks and is used: narrow and wide, light and dark, by keyboard, by people who do not see it."""

import itertools
from typing import Any

import pytest

from tests.http.playground.browser import Visit, Visits
from tests.http.playground.test_search import marked

# WCAG 2's formula for the contrast of what is drawn on what, over every element that shows text of its own.
CONTRASTS = """
() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest(".sr, .skip")) continue;
    const [one, other] = [getComputedStyle(element).color, null];
    const [light, dark] = [luminance(rgba(one)), luminance(ground(element))].sort((a, b) => b - a);
    found.push([(light + 0.05) / (dark + 0.05), element.tagName, element.className, element.id]);
  }
  return found;
}
"""

# What a screen reader could not name: a control without a name, a picture without a text.
NAMELESS = """
() => [...document.querySelectorAll("button, input, select, textarea, a, [role=img], progress")]
  .filter((element) => element.checkVisibility())
  .filter((element) => !(element.ariaLabel || element.innerText?.trim() || element.labels?.length))
  .map((element) => element.outerHTML)
"""


def searched(visits: Visits, **options: Any) -> Visit:
    visit = visits.open(**options)
    visit.use_corpus()
    visit.search("total of the invoice")
    return visit


def width(visit: Visit) -> int:
    return int(visit.page.evaluate("document.documentElement.scrollWidth"))


def test_a_phone_shows_one_ranking_at_a_time_and_never_scrolls_sideways(visits: Visits) -> None:
    visit = visits.open(360, 740, has_touch=True)
    assert width(visit) == 360
    visit.use_corpus()
    visit.search("a-very-long-word-without-any-place-to-break-it-" * 4)
    assert width(visit) == 360
    single, multi = (visit.page.locator(f"#ranked-{name}") for name in ("single", "multi"))
    assert (single.is_visible(), multi.is_visible()) == (True, False)
    visit.choose("Ranking shown", "MaxSim")
    assert (single.is_visible(), multi.is_visible()) == (False, True)
    assert not visit.page.locator("#page").is_visible()
    multi.get_by_role("button").nth(1).tap()
    assert visit.page.locator("#page").is_visible()
    assert width(visit) == 360
    box = visit.page.locator("#stage").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    visit.page.get_by_role("button", name="Close").tap()
    assert not visit.page.locator("#page").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(visits: Visits, scheme: str) -> None:
    visit = searched(visits, color_scheme=scheme)
    visit.add(("notes.txt", "text/plain", b"hello"))
    contrasts = visit.page.evaluate(CONTRASTS)
    assert len(contrasts) > 60
    assert min(contrasts)[0] >= 4.5, sorted(contrasts)[:5]
    ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(ground.split("(")[1].split(",")[0])
    assert (red > 200) == (scheme == "light")


def test_everything_that_is_operated_has_a_name(visits: Visits) -> None:
    visit = searched(visits)
    assert visit.page.evaluate(NAMELESS) == []
    levels = [
        int(level)
        for level in visit.page.locator("h1, h2, h3, h4").evaluate_all(
            "(all) => all.filter((one) => one.checkVisibility()).map((one) => one.tagName[1])"
        )
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert visit.page.locator("html").get_attribute("lang") == "en"
    for label in ("list", "alert", "status", "search"):
        assert visit.page.get_by_role(label).count() or label == "alert"


def test_a_search_is_done_by_keyboard_alone(visits: Visits) -> None:
    visit = visits.open()
    keys = visit.page.keyboard
    keys.press("Tab")
    assert visit.page.evaluate("document.activeElement.className") == "skip"
    keys.press("Tab")
    keys.type("total")
    visit.page.get_by_role("button", name="Embed the built-in pages").focus()
    keys.press("Space")
    visit.until_embedded()
    visit.page.get_by_label("Query, in words or as a picture").focus()
    keys.press("Enter")
    visit.until_ranked()
    first = visit.page.locator("#ranked-single .card").first
    first.focus()
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    keys.press("ArrowUp")
    keys.press("Enter")
    assert visit.text("#page-title") == visit.titles("single")[1]
    current = visit.page.locator("#ranked-single [aria-current=true]")
    assert current.evaluate("(card) => card === document.activeElement")
    # The dimensions are one stop, between whose choices arrows move; the place is kept while ranks change.
    visit.page.get_by_role("radio", name="64", exact=True).focus()
    keys.press("ArrowLeft")
    assert visit.page.evaluate("document.activeElement.value") == "32"


def test_a_window_over_the_page_gives_the_focus_back(visits: Visits) -> None:
    visit = visits.open(700, 900)
    marked(visit)
    visit.search("b")
    card = (
        visit.page.locator("#ranked-multi .card, #ranked-single .card")
        .locator("visible=true")
        .nth(1)
    )
    card.focus()
    visit.page.keyboard.press("Enter")
    assert visit.page.locator("#page").evaluate("(page) => page.contains(document.activeElement)")
    visit.page.keyboard.press("Escape")
    assert card.evaluate("(card) => card === document.activeElement")
    assert not visit.page.locator("#page").is_visible()


@pytest.mark.parametrize(("motion", "moves"), [("reduce", False), ("no-preference", True)])
def test_cards_move_only_where_motion_is_welcome(visits: Visits, motion: str, moves: bool) -> None:
    visit = visits.open(reduced_motion=motion)
    visit.page.evaluate(
        """
        () => {
          globalThis.moves = 0;
          const animate = Element.prototype.animate;
          Element.prototype.animate = function (...given) {
            globalThis.moves++;
            return animate.apply(this, given);
          };
        }
        """
    )
    visit.use_corpus()
    for query in ("total of the invoice", "hard hats required", "agenda", "b"):
        visit.search(query)
        visit.page.wait_for_timeout(50)
    assert (visit.page.evaluate("globalThis.moves") > 0) == moves
