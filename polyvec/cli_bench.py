"""`polyvec bench`: measurements that a user of a model runs; the library's own benchmarks are not installed."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

    from benchmarks.quality.representation import Representation
    from benchmarks.quality.run import TaskScore
    from benchmarks.quality.source import Source
    from serving.manifest import Dtype

bench_app = typer.Typer(help="Measure how good a model's vectors are.", no_args_is_help=True)


class VectorKind(StrEnum):
    """What `--vectors` takes."""

    SINGLE = "single"
    MULTI = "multi"


class Stored(StrEnum):
    """What `--precision` takes."""

    FLOAT32 = "float32"
    INT8 = "int8"
    BINARY = "binary"


class Arithmetic(StrEnum):
    """What `--dtype` takes."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Side(StrEnum):
    """What `--query-prompt` and `--document-prompt` take."""

    QUERY = "query"
    PASSAGE = "passage"


Models = Annotated[
    Path | None,
    typer.Argument(help="What `polyvec merge` wrote: OUT or OUT/<task>; or pass --server."),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        help="Tasks or benchmarks of mteb, as VidoreDocVQARetrieval, ViDoRe(v1), JinaVDR, STS12; repeatable, "
        "or with commas between."
    ),
]
TaskDirectories = Annotated[
    list[Path] | None,
    typer.Option(help="A dataset of your own: corpus, queries and qrels; repeatable."),
]
Server = Annotated[
    str | None,
    typer.Option(
        help="Measure a running server instead, by its URL; its key is read from POLYVEC_API_KEY."
    ),
]
Output = Annotated[Path, typer.Option(help="mteb's results are written below it.")]
Kind = Annotated[VectorKind, typer.Option(help="One vector an input, or one a token and MaxSim.")]
Dimensions = Annotated[
    int | None, typer.Option(min=1, help="Keep this many dimensions (Matryoshka).")
]
StoredAs = Annotated[Stored, typer.Option(help="Of each value, as an index would hold it.")]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Area to which pages are reduced. Default: 37,788,800, as in the model's paper; a server's own.",
    ),
]
ComputedIn = Annotated[
    Arithmetic | None, typer.Option(help="Of the model. Default: the checkpoint's.")
]
Adapter = Annotated[
    str | None,
    typer.Option(
        help="For all tasks. Default: code for programming, text-matching for similarity of pairs, else retrieval."
    ),
]
QueryPrompt = Annotated[Side | None, typer.Option(help="Prefix of mteb's queries. Default: query.")]
DocumentPrompt = Annotated[
    Side | None,
    typer.Option(help="Prefix of mteb's documents. Default: passage; query for text-matching."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Measure again what has results in OUTPUT.")
]


@bench_app.callback()
def _bench() -> None:
    """Measure how good a model's vectors are."""


@bench_app.command()
def quality(
    models: Models = None,
    tasks: Tasks = None,
    task_dir: TaskDirectories = None,
    server: Server = None,
    output: Output = Path("quality"),
    vectors: Kind = VectorKind.SINGLE,
    dimensions: Dimensions = None,
    precision: StoredAs = Stored.FLOAT32,
    max_pixels: MaxPixels = None,
    dtype: ComputedIn = None,
    adapter: Adapter = None,
    query_prompt: QueryPrompt = None,
    document_prompt: DocumentPrompt = None,
    overwrite: Overwrite = False,
) -> None:
    """Run tasks of mteb (MTEB, ViDoRe, Jina-VDR) or datasets of your own; results are mteb's own files."""
    from benchmarks.quality.extras import require

    require("mteb", for_what="Measuring quality")
    from benchmarks.quality.adapters import Choice
    from benchmarks.quality.model import PAPER_MAX_PIXELS, Measured
    from benchmarks.quality.representation import Representation
    from benchmarks.quality.run import Run, run_tasks

    kept = Representation(vectors.value, dimensions, precision.value)
    found = _tasks(tasks or [], task_dir or [])
    _quiet()
    pixels = PAPER_MAX_PIXELS if max_pixels is None else max_pixels
    arithmetic: Dtype | None = None if dtype is None else dtype.value
    source = _source(models, server, arithmetic, pixels, asked=max_pixels is not None)
    try:
        _check(source, kept)
        measured = Measured(
            kept,
            Choice(adapter, query_prompt, document_prompt),
            max_pixels=source.model.max_pixels if server else pixels,
        )
        run = Run(output, overwrite=overwrite, progress=sys.stderr.isatty())
        print(f"{source.model.name} {source.model.revision}", flush=True)
        scores = run_tasks(found, source, measured, run, lambda score: print(_line(score)))
    finally:
        source.close()
    print(f"results in {scores[0].path.parent}")


def _tasks(names: list[str], directories: list[Path]) -> "list[AbsTask]":
    from benchmarks.quality.local_task import local_task
    from benchmarks.quality.named_tasks import named_tasks

    # A benchmark's name may hold a comma: "ViDoRe(v3.1, reranking)".
    split = [part.strip() for name in names for part in _parts(name)]
    if not split and not directories:
        raise typer.BadParameter("Nothing to measure: pass --tasks NAME or --task-dir DIR.")
    return [*named_tasks(split), *map(local_task, directories)]


def _parts(names: str) -> list[str]:
    return [names] if "(" in names and "," in names[names.index("(") :] else names.split(",")


def _source(
    models: Path | None, server: str | None, dtype: "Dtype | None", max_pixels: int, *, asked: bool
) -> "Source":
    if (models is None) == (server is None):
        raise typer.BadParameter("Pass MODELS, or --server URL, and not both.")
    if server is None:
        from benchmarks.quality.local import LocalSource

        assert models is not None
        return LocalSource.of(models, dtype=dtype, max_pixels=max_pixels)
    if dtype is not None or asked:
        raise typer.BadParameter(
            "--dtype and --max-pixels are the server's own: start it with --dtype; it reduces pages to its "
            "checkpoint's max_pixels."
        )
    from benchmarks.quality.server import ServerSource

    return ServerSource.of(server, os.environ.get("POLYVEC_API_KEY"))


def _check(source: "Source", kept: "Representation") -> None:
    from serving import TaskError

    model, asked = source.model, kept.dimensions
    if asked is None:
        return
    if model.dimensions is not None and asked not in model.dimensions:
        raise TaskError(f"--dimensions must be one of {list(model.dimensions)}, not {asked}.")
    if asked > model.dim:
        raise TaskError(f"--dimensions must be at most {model.dim}, not {asked}.")


def _line(score: "TaskScore") -> str:
    earlier = "  (measured earlier; --overwrite measures again)" if score.earlier else ""
    return f"  {score.task:<40} {score.adapter:<14} {score.metric:<16} {score.score:.5f}{earlier}"


def _quiet() -> None:
    """Bars of the libraries below are for terminals."""
    if not sys.stderr.isatty():
        import datasets

        datasets.disable_progress_bars()
