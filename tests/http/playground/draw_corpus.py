"""Draws a small corpus in the playground's format: `python -m tests.http.playground.draw_corpus DIRECTORY`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = 448
Draw = Callable[[ImageDraw.ImageDraw], None]


def _rows(draw: ImageDraw.ImageDraw, rows: list[tuple[str, ...]], columns: tuple[int, ...]) -> None:
    for at, row in enumerate(rows):
        for text, left in zip(row, columns, strict=True):
            draw.text((left, 110 + 44 * at), text, fill="#222", font_size=19)
        draw.line((30, 142 + 44 * at, 418, 142 + 44 * at), fill="#ccc")


def _invoice(draw: ImageDraw.ImageDraw) -> None:
    draw.text((30, 30), "INVOICE 2041", fill="black", font_size=32)
    rows = [("12 notebooks", "48.00"), ("3 lamps", "96.50"), ("1 desk", "310.00")]
    _rows(draw, [*rows, ("TOTAL", "454.50")], (30, 340))


def _chart(draw: ImageDraw.ImageDraw) -> None:
    draw.text((30, 30), "Sales by quarter", fill="black", font_size=30)
    for at, (height, color) in enumerate(
        [(140, "#1f3a68"), (210, "#2a7f7a"), (120, "#d98b2b"), (270, "#a33b2e")]
    ):
        left = 50 + 95 * at
        draw.rectangle((left, 380 - height, left + 60, 380), fill=color)
        draw.text((left + 16, 392), f"Q{at + 1}", fill="black", font_size=22)


def _slide(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((0, 0, SIZE, 90), fill="#1f3a68")
    draw.text((30, 24), "Monday's agenda", fill="white", font_size=34)
    for at, item in enumerate(["Welcome", "Budget for next year", "New office", "Questions"]):
        draw.ellipse((40, 142 + 62 * at, 54, 156 + 62 * at), fill="#1f3a68")
        draw.text((74, 132 + 62 * at), item, fill="#222", font_size=25)


def _table(draw: ImageDraw.ImageDraw) -> None:
    draw.text((30, 30), "Opening hours", fill="black", font_size=30)
    days = [("Monday", "8:00", "17:00"), ("Wednesday", "9:00", "18:30")]
    _rows(draw, [("Day", "from", "to"), *days, ("Saturday", "10:00", "14:00")], (30, 220, 340))


def _sign(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((40, 90, 408, 358), fill="#a33b2e")
    draw.text((120, 130), "NO ENTRY", fill="white", font_size=42)
    draw.text((96, 220), "Construction site", fill="white", font_size=30)
    draw.text((92, 280), "Hard hats required", fill="white", font_size=28)


def _form(draw: ImageDraw.ImageDraw) -> None:
    draw.text((30, 30), "Application for leave", fill="black", font_size=28)
    for at, label in enumerate(["Name", "Department", "From", "Until", "Signature"]):
        draw.text((30, 110 + 62 * at), label, fill="#444", font_size=20)
        draw.rectangle((170, 102 + 62 * at, 410, 138 + 62 * at), outline="#555", width=2)


PAGES: dict[str, tuple[str, Draw, list[str]]] = {
    "page-000.png": ("Invoice for office furniture", _invoice, ["total of the invoice"]),
    "page-001.png": ("Chart of sales", _chart, ["sales by quarter"]),
    "page-002.png": ("Slide with an agenda", _slide, ["agenda of the meeting"]),
    "page-003.png": ("Table of opening hours", _table, ["when does it open on Saturday"]),
    "page-004.png": ("Sign at a building site", _sign, ["hard hats required"]),
    "page-005.png": ("Form to apply for leave", _form, ["ask for a holiday"]),
}


def draw_corpus(directory: Path) -> None:
    """Write the pictures and their index to `directory`."""
    listed = []
    for file, (title, draw, queries) in PAGES.items():
        page = Image.new("RGB", (SIZE, SIZE), "white")
        draw(ImageDraw.Draw(page))
        page.save(directory / file, optimize=True)
        listed.append({"file": file, "title": title, "queries": queries})
    index = {"pages": listed, "queries": [query for page in listed for query in page["queries"]]}
    text = json.dumps(index, ensure_ascii=False, indent=1) + "\n"
    (directory / "corpus.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    draw_corpus(Path(sys.argv[1]))
