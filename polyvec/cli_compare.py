"""`polyvec compare`: whether a smaller or faster way to embed is good enough for one's own corpus."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from benchmarks.quality.compare.comparison import Comparison
    from benchmarks.quality.compare.spec import EngineRun


def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="The reference: MODELS/TASK, or MODELS/TASK@KEY=VALUE,... with dtype, dimensions, precision "
            "(float32, int8, binary), vectors (single, multi), task.",
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="What might replace it, written likewise.")],
    data: Annotated[
        Path,
        typer.Option(
            help="A dataset (corpus, queries, qrels); or, with --queries, JSONL, parquet, CSV or a directory of images.",
            show_default=False,
        ),
    ],
    queries: Annotated[
        Path | None,
        typer.Option(help="Queries without judgments: one a line in FILE.txt, or JSONL, CSV, ..."),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="comparison.json and comparison.png are written into it.")
    ] = Path("comparison"),
    k: Annotated[int, typer.Option("--k", min=1, help="Depth of nDCG.")] = 10,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Area to which pages are reduced. Default: the checkpoint's."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the comparison that OUTPUT holds.")
    ] = False,
) -> None:
    """Compare two checkpoints, dtypes, dimensions or precisions on the same data: a table, JSON and a picture."""
    from benchmarks.quality.extras import require
    from serving.errors import OutputError

    if (output / "comparison.json").exists() and not overwrite:
        raise OutputError(
            f"{output} holds a comparison already. Pass another --output, or replace it with --overwrite."
        )
    needed = ("datasets", "pyarrow", "scipy", "pytrec_eval", "matplotlib")
    require(*needed, for_what="A comparison")
    from benchmarks.quality.compare.comparison import compare_sides
    from benchmarks.quality.compare.data import read_data
    from benchmarks.quality.compare.embedding import embed_sides
    from benchmarks.quality.compare.report import format_comparison
    from benchmarks.quality.compare.spec import Spec

    specs = Spec.parse(a), Spec.parse(b)
    inputs = read_data(data, queries)
    sides = embed_sides(*specs, inputs, max_pixels=max_pixels, on_run=_say)
    found = compare_sides(*sides, inputs, k=k, seed=seed)
    print(format_comparison(found))
    _save(found, output)
    print(f"\n{output / 'comparison.json'}, {output / 'comparison.png'}")


def _say(run: "EngineRun") -> None:
    print(f"embedding with {run.directory} in {run.dtype} ...", flush=True)


def _save(found: "Comparison", output: Path) -> None:
    """Each file appears whole or not at all."""
    from benchmarks.quality.compare.plot import draw
    from benchmarks.quality.compare.report import comparison_json

    output.mkdir(parents=True, exist_ok=True)
    staging = output / ".comparison.partial"
    try:
        staging.write_text(comparison_json(found) + "\n", encoding="utf-8")
        staging.replace(output / "comparison.json")
        draw(found).savefig(staging, format="png", dpi=100)
        staging.replace(output / "comparison.png")
    finally:
        staging.unlink(missing_ok=True)
