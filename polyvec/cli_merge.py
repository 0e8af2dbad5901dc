"""`polyvec merge` and `polyvec verify`."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from tqdm import tqdm


class OutputDtype(StrEnum):
    """What `--dtype` takes."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


Revision = Annotated[
    str | None, typer.Option(help="Commit, tag or branch of a hub id; pins the adapters too.")
]
Base = Annotated[
    str | None,
    typer.Option(help="Base model of a PEFT adapter; default: the one its config names."),
]
Adapter = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=DIR", help="A PEFT LoRA directory to merge as task NAME; repeatable."
    ),
]


def merge(
    source: Annotated[
        str, typer.Argument(help="Checkpoint directory, PEFT adapter directory, or hub id.")
    ],
    out: Annotated[Path, typer.Argument(help="Where OUT/<task> directories are written.")],
    task: Annotated[
        list[str] | None, typer.Option(help="Merge only this task; repeatable. Default: all.")
    ] = None,
    dtype: Annotated[
        OutputDtype | None, typer.Option(help="Write this dtype. Default: the base's own.")
    ] = None,
    revision: Revision = None,
    adapter: Adapter = None,
    base: Base = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and write nothing.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace finished checkpoints in OUT.")
    ] = False,
    check_hashes: Annotated[
        bool,
        typer.Option("--check-hashes", help="Check the source against the hub's hashes first."),
    ] = False,
) -> None:
    """Merge each LoRA adapter of SOURCE into a checkpoint of its own, OUT/<task>."""
    import merge_tools

    resolved = merge_tools.resolve_source(source, revision=revision)
    plan = merge_tools.plan_merge(
        resolved,
        tasks=task,
        dtype=None if dtype is None else dtype.value,
        adapters=_adapters(adapter),
        base=base,
        check_hashes=check_hashes,
    )
    print(plan.describe())
    if dry_run:
        return
    with tqdm(unit="B", unit_scale=True, unit_divisor=1024, desc="merge") as bar:
        report = merge_tools.merge(plan, out, progress=_progress(bar), overwrite=overwrite)
    print(report.describe())


def verify(
    out: Annotated[Path, typer.Argument(help="What `polyvec merge` wrote: OUT or OUT/<task>.")],
    source: Annotated[
        str | None, typer.Option(help="Recompute everything from this source.")
    ] = None,
    revision: Revision = None,
    adapter: Adapter = None,
    base: Base = None,
    forward: Annotated[
        bool,
        typer.Option("--forward", help="Also compare hidden states with base + unmerged adapters."),
    ] = False,
) -> None:
    """Check merged checkpoints: against their own digests, or recomputed from SOURCE."""
    import merge_tools

    if forward and source is None:
        raise typer.BadParameter("--forward compares with the source: pass --source too.")
    resolved = None if source is None else merge_tools.resolve_source(source, revision=revision)
    with tqdm(unit="B", unit_scale=True, unit_divisor=1024, desc="verify") as bar:
        report = merge_tools.verify(
            out,
            source=resolved,
            adapters=_adapters(adapter),
            base=base,
            progress=_progress(bar),
        )
    print(report.describe())
    passed = report.passed
    if forward and resolved is not None:
        forward_report = merge_tools.verify_forward(
            out, resolved, adapters=_adapters(adapter), base=base
        )
        print(forward_report.describe())
        passed = passed and forward_report.passed
    if not passed:
        raise typer.Exit(1)


def _adapters(options: list[str] | None) -> dict[str, Path] | None:
    if not options:
        return None
    adapters: dict[str, Path] = {}
    for option in options:
        name, equals, directory = option.partition("=")
        if not equals or not name or not directory:
            raise typer.BadParameter(f"--adapter takes NAME=DIR, not {option!r}.")
        if name in adapters:
            raise typer.BadParameter(f"--adapter names {name!r} twice.")
        adapters[name] = Path(directory)
    return adapters


def _progress(bar: "tqdm[NoReturn]") -> Callable[[int, int], None]:
    """Moves the bar to what merge_tools reports: bytes done, of bytes in all."""

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show
