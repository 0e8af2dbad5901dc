"""`polyvec demo`: from a checkpoint with adapters to a similarity table and a picture."""

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from serving import Embedder


def demo(
    source: Annotated[str, typer.Argument(help="Checkpoint with its adapters, as for merge.")],
    out: Annotated[
        Path, typer.Option(help="Directory for the merged checkpoints and the picture.")
    ] = Path(".demo"),
) -> None:
    """Merge, verify, load in vLLM, and show what comes out."""
    from serving import Embedder

    if importlib.util.find_spec("matplotlib") is None:
        raise typer.BadParameter("The demo draws with matplotlib: pip install 'polyvec[demo]'.")
    merged = out / "merged"
    _merge_and_verify(source, out, merged)
    started = time.monotonic()
    print(f"\nloading {merged} in vLLM (about a minute on two cores) ...", flush=True)
    with Embedder.load(merged) as embedder:
        print(f"loaded {', '.join(embedder.tasks)} in {time.monotonic() - started:.0f} s")
        task = "retrieval" if "retrieval" in embedder.tasks else embedder.tasks[0]
        _show_shapes(embedder)
        _show_languages(embedder, task)
        scores, late = _show_pages(embedder, task)
    picture = out / "similarity.png"
    _draw(scores, late, picture)
    print(f"\npicture  {picture}")
    print(
        f"next     polyvec encode --model {merged} --task {task} 'your text'\n"
        "note     with random weights the numbers show that everything runs, not that it retrieves"
    )


def _merge_and_verify(source: str, out: Path, merged: Path) -> None:
    import merge_tools

    plan = merge_tools.plan_merge(merge_tools.resolve_source(source))
    print(plan.describe())
    # Replaces what an earlier demo merged, and nothing else.
    print(merge_tools.merge(plan, merged, overwrite=True).describe())
    report = merge_tools.verify(merged, source=merge_tools.resolve_source(source))
    print(report.describe())
    if not report.passed:
        raise typer.Exit(1)


def _show_shapes(embedder: "Embedder") -> None:
    from polyvec.demo_samples import CODE, SENTENCES, draw_pages

    print(f"\n{'task':<15} {'input':<16} {'single':>8} {'multi-vector':>14}")
    inputs = {"English": SENTENCES["English"], **CODE, "page: invoice": draw_pages()["invoice"]}
    for task in embedder.tasks:
        single = embedder.encode(list(inputs.values()), task=task, convert_to_numpy=False)
        multi = embedder.encode(
            list(inputs.values()), task=task, return_multivector=True, convert_to_numpy=False
        )
        for name, vector, vectors in zip(inputs, single, multi, strict=True):
            rows, columns = vectors.shape
            print(f"{task:<15} {name:<16} {len(vector):>8} {f'{rows} x {columns}':>14}")


def _show_languages(embedder: "Embedder", task: str) -> None:
    from polyvec.demo_samples import SENTENCES

    vectors = embedder.encode(list(SENTENCES.values()), task=task, convert_to_tensor=True)
    print(f"\ncosine similarity of one sentence in {len(SENTENCES)} languages ({task})")
    _table(list(SENTENCES), [name[:4] for name in SENTENCES], vectors @ vectors.T, "6.3f")


def _show_pages(embedder: "Embedder", task: str) -> "tuple[Tensor, Tensor]":
    from polyvec.demo_samples import QUERIES, draw_pages
    from pooling import maxsim_scores

    pages = draw_pages()
    queries, documents = list(QUERIES.values()), list(pages.values())
    scores = (
        embedder.encode_query(queries, task=task, convert_to_tensor=True)
        @ embedder.encode_document(documents, task=task, convert_to_tensor=True).T
    )
    late = maxsim_scores(
        embedder.encode_query(queries, task=task, return_multivector=True, convert_to_numpy=False),
        embedder.encode_document(
            documents, task=task, return_multivector=True, convert_to_numpy=False
        ),
    )
    print(f"\nqueries against pages: cosine of single vectors ({task})")
    _table(list(QUERIES), list(pages), scores, "8.3f")
    print(f"\nqueries against pages: MaxSim of multi-vectors ({task})")
    _table(list(QUERIES), list(pages), late, "8.3f")
    return scores, late


def _table(rows: list[str], columns: list[str], values: "Tensor", form: str) -> None:
    width = int(form.split(".")[0])
    print(" " * 24 + " ".join(f"{name:>{width}}" for name in columns))
    for name, row in zip(rows, values.tolist(), strict=True):
        print(f"{name:<24}" + " ".join(format(value, form) for value in row))


def _draw(scores: "Tensor", late: "Tensor", picture: Path) -> None:
    """The pages in a row; below them, one heat map for each kind of vector."""
    import matplotlib as mpl

    from polyvec.demo_samples import QUERIES, draw_pages

    mpl.use("Agg")
    from matplotlib import pyplot

    pages = draw_pages()
    figure = pyplot.figure(figsize=(14, 8), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[3, 2])[:, 0]
    for axis, (name, page) in zip(above.subplots(1, len(pages)), pages.items(), strict=True):
        axis.imshow(page)
        axis.set_title(name)
        axis.set_xticks([])
        axis.set_yticks([])
    titles = ["single vectors, cosine", "multi-vectors, MaxSim"]
    for axis, values, title in zip(below.subplots(1, 2), (scores, late), titles, strict=True):
        shown = axis.imshow(values.numpy(), cmap="viridis", aspect="auto")
        axis.set_title(title)
        axis.set_xticks(range(len(pages)), list(pages))
        axis.set_yticks(range(len(QUERIES)), list(QUERIES))
        middle = float(values.min() + values.max()) / 2
        for (row, column), value in _cells(values):
            color = "black" if value > middle else "white"
            axis.text(column, row, f"{value:.3f}", ha="center", va="center", color=color)
        below.colorbar(shown, ax=axis)
    figure.savefig(picture, dpi=100)
    pyplot.close(figure)


def _cells(values: "Tensor") -> list[tuple[tuple[int, int], float]]:
    return [
        ((row, column), value)
        for row, line in enumerate(values.tolist())
        for column, value in enumerate(line)
    ]
