"""`python -m mini.documents OUT [--pages N]`: a corpus of pages that the model has not seen, as PNG files with a corpus.json.

It is what the playground shows when nothing was dropped on it.
"""

import argparse
import json
from pathlib import Path

from mini.documents.sets import HELD_OUT_SEED, held_out_pages

_SEED = HELD_OUT_SEED + 100
_NUM_PAGES = 42
_QUERY_EVERY = 5
"""Pages from one example query to the next; kinds take turns, six of them, so each is asked for."""


def main() -> None:
    """Write the corpus."""
    parser = argparse.ArgumentParser(prog="python -m mini.documents", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pages", type=int, default=_NUM_PAGES)
    asked = parser.parse_args()
    corpus = held_out_pages(asked.pages, seed=_SEED)
    asked.out.mkdir(parents=True, exist_ok=True)
    pages = []
    for at, (page, query) in enumerate(zip(corpus.pages, corpus.queries, strict=True)):
        file = f"page-{at:03}.png"
        # Few colours: a third of the bytes, and nothing that the eye or the model would miss.
        page.image.quantize(32).save(asked.out / file, optimize=True)
        # For people; the model has learned its passages as they are.
        title = page.passage.replace("a orange", "an orange").replace("A orange", "An orange")
        pages.append({"file": file, "title": title, "queries": [query.text]})
    queries = [page["queries"][0] for page in pages[::_QUERY_EVERY]]
    text = json.dumps({"pages": pages, "queries": queries}, indent=1, ensure_ascii=False)
    (asked.out / "corpus.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
