"""What `polyvec demo` embeds: one sentence in ten languages, code, and three drawn pages."""

from PIL import Image, ImageDraw

SENTENCES = {
    "English": "A beautiful sunset over the beach",
    "German": "Ein wunderschöner Sonnenuntergang am Strand",
    "French": "Un magnifique coucher de soleil sur la plage",
    "Spanish": "Una hermosa puesta de sol sobre la playa",
    "Arabic": "غروب جميل على الشاطئ",
    "Chinese": "海滩上美丽的日落",
    "Japanese": "浜辺に沈む美しい夕日",
    "Korean": "해변 위로 아름다운 일몰",
    "Hindi": "समुद्र तट पर एक खूबसूरत सूर्यास्त",
    "Russian": "Красивый закат над пляжем",
}

CODE = {
    "Python": "def add(left, right):\n    return left + right",
    "Rust": "fn add(left: i64, right: i64) -> i64 { left + right }",
}

QUERIES = {
    "total of the invoice": "What is the total of the invoice?",
    "sales by quarter": "bar chart of sales by quarter",
    "agenda of the meeting": "agenda of Monday's meeting",
}


def draw_pages() -> dict[str, Image.Image]:
    """Three pages of 850 x 1100 pixels: an invoice, a chart and a slide."""
    return {"invoice": _invoice(), "chart": _chart(), "slide": _slide()}


def _blank(title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    page = Image.new("RGB", (850, 1100), "white")
    draw = ImageDraw.Draw(page)
    draw.text((80, 70), title, fill="black", font_size=48)
    draw.line((80, 140, 770, 140), fill="black", width=3)
    return page, draw


def _invoice() -> Image.Image:
    page, draw = _blank("INVOICE 2041")
    rows = [("12 notebooks", "48.00"), ("3 lamps", "96.50"), ("1 desk", "310.00")]
    for at, (item, price) in enumerate([*rows, ("TOTAL", "454.50")]):
        draw.text((100, 200 + 70 * at), item, fill="black", font_size=32)
        draw.text((620, 200 + 70 * at), price, fill="black", font_size=32)
    return page


def _chart() -> Image.Image:
    page, draw = _blank("Sales by quarter")
    for at, (height, color) in enumerate(
        [(300, "navy"), (420, "teal"), (260, "orange"), (560, "firebrick")]
    ):
        left = 130 + 160 * at
        draw.rectangle((left, 900 - height, left + 100, 900), fill=color)
        draw.text((left + 25, 920), f"Q{at + 1}", fill="black", font_size=36)
    return page


def _slide() -> Image.Image:
    page, draw = _blank("Monday's agenda")
    for at, item in enumerate(["Welcome", "Budget for next year", "New office", "Questions"]):
        draw.ellipse((100, 232 + 90 * at, 120, 252 + 90 * at), fill="black")
        draw.text((145, 220 + 90 * at), item, fill="black", font_size=36)
    return page
