"""`python -m mini.quality`: merge the committed checkpoint, embed what it has not seen, and print the table.

The JSON goes where `--out` says. Also `--export DIR`: the same pages and queries as a dataset for mteb.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import merge_tools
from benchmarks.card import format_card, make_card
from benchmarks.quality.dataset import write_page_dataset, write_pairs_dataset
from mini.quality import merged, unmerged
from mini.quality.sets import Sets, draw_sets
from serving import PolyvecError

CHECKPOINT = Path(__file__).parents[1] / "polyvec-mini"


def main() -> None:
    """Measure, or export."""
    parser = argparse.ArgumentParser(prog="python -m mini.quality", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--out", type=Path, help="file for the JSON")
    parser.add_argument("--export", type=Path, help="write the held-out sets here, and stop")
    asked = parser.parse_args()
    sets = draw_sets()
    if asked.export is not None:
        _export(sets, asked.export)
        return
    started = time.monotonic()
    card = make_card()
    print(format_card(card), end="\n\n")
    with TemporaryDirectory() as work:
        out = Path(work) / "merged"
        merge_tools.merge(
            merge_tools.plan_merge(merge_tools.resolve_source(str(asked.checkpoint))), out
        )
        vectors = merged.embed(out / merged.TASK, sets)
    kept = merged.rows(vectors)
    learner = unmerged.load(asked.checkpoint)
    adapters = list(unmerged.rows(learner, sets))
    # The same vectors, merged in bfloat16 and run in it, as users do.
    queries, pages = unmerged.page_vectors(learner, sets, merged.TASK)
    furthest = {
        name: 1 - float((one * other).sum(dim=1).min())
        for name, one, other in (
            ("queries", queries, vectors.queries),
            ("pages", pages, vectors.pages),
        )
    }
    seconds = round(time.monotonic() - started)
    print(_kept_table(kept), _adapter_table(adapters), sep="\n\n")
    print(f"\nmerged against unmerged, largest 1 - cosine: {furthest}\n{seconds} s")
    if asked.out is not None:
        result = {
            "card": asdict(card),
            "kept": [asdict(row) for row in kept],
            "adapters": [asdict(row) for row in adapters],
            "merged_against_unmerged": furthest,
            "seconds": seconds,
        }
        asked.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _export(sets: Sets, directory: Path) -> None:
    pages = sets.pages
    written = write_page_dataset(
        directory / "pages",
        (
            (f"page-{at:03}", page.image, [pages.queries[at].text])
            for at, page in enumerate(pages.pages)
        ),
    )
    rows = [(one.left, one.right, one.similarity) for one in sets.pairs]
    pairs = write_pairs_dataset(directory / "pairs", rows, max_score=1)
    print(f"{written.num_pages} pages, {written.num_queries} queries: {written.directory}")
    print(f"{len(rows)} pairs: {pairs}")


def _kept_table(rows: Sequence[merged.Kept]) -> str:
    lines = ["| kept of a page | bytes | recall@1 | nDCG@10 |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {row.page_bytes:,} | {row.first} | {row.ndcg} |" for row in rows]
    return "\n".join(lines)


def _adapter_table(rows: Sequence[unmerged.Row]) -> str:
    lines = [
        "| adapter | pages: recall@1 | pages: nDCG@10 | pairs: Spearman | functions: nDCG@10 |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.adapter} | {row.retrieval_first} | {row.retrieval} | {row.text_matching} | {row.code} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    try:
        main()
    except (PolyvecError, merge_tools.MergeToolsError) as error:
        raise SystemExit(f"mini.quality: {error}") from error
