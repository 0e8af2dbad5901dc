"""`polyvec encode`: a few vectors without writing Python."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 6


class Prompt(StrEnum):
    """What `--prompt` takes."""

    QUERY = "query"
    PASSAGE = "passage"


def encode(
    model: Annotated[Path, typer.Option(help="What `polyvec merge` wrote: OUT or OUT/<task>.")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to embed; '-' reads one a line from stdin.")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="An image file to embed; repeatable.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Which adapter; may be left out when MODEL has one.")
    ] = None,
    prompt: Annotated[Prompt, typer.Option(help="Prefix of the texts.")] = Prompt.QUERY,
    multivector: Annotated[
        bool, typer.Option("--multivector", help="One vector for each token.")
    ] = False,
    dim: Annotated[int | None, typer.Option(help="Keep this many dimensions (Matryoshka).")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Save to FILE.npz (arrays by position) or FILE.jsonl; default: print."),
    ] = None,
) -> None:
    """Embed texts and images; prints the beginning of each vector, or saves them whole."""
    from serving import Embedder, TaskError
    from serving.manifest import find_tasks

    inputs: list[str | Path] = [*_read(texts or []), *(image or [])]
    if not inputs:
        raise typer.BadParameter("Nothing to embed: pass texts, '-' or --image FILE.")
    if output is not None:
        _check_output(output)
    found = sorted(find_tasks(model))
    if task is None:
        if len(found) > 1:
            raise TaskError(f"{model} holds several tasks. Pass --task, one of {found}.")
        task = found[0]
    with Embedder.load(model, tasks=[task]) as embedder:
        vectors = embedder.encode(
            inputs,
            task=task,
            prompt_name=prompt.value,
            return_multivector=multivector,
            truncate_dim=dim,
            convert_to_numpy=False,
        )
    if output is None:
        for item, vector in zip(inputs, vectors, strict=True):
            print(_line(item, vector))
    else:
        _save(output, inputs, vectors)
        print(f"{output}: {len(vectors)} embeddings")


def _read(texts: list[str]) -> list[str]:
    if "-" not in texts:
        return texts
    at = texts.index("-")
    return [*texts[:at], *sys.stdin.read().splitlines(), *texts[at + 1 :]]


def _check_output(output: Path) -> None:
    """Before a minute is spent on starting the engine."""
    if output.suffix not in {".npz", ".jsonl"}:
        raise typer.BadParameter(f"--output must end in .npz or .jsonl, not {output.name!r}.")
    if not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"{output.parent} does not exist. Create it first.")


def _line(item: str | Path, vector: "Tensor") -> str:
    name = str(item) if len(str(item)) <= 40 else str(item)[:37] + "..."
    head = ", ".join(f"{value:+.4f}" for value in vector.flatten()[:_SHOWN].tolist())
    more = ", ..." if vector.numel() > _SHOWN else ""
    return f"{name}  {list(vector.shape)}  [{head}{more}]"


def _save(output: Path, inputs: list[str | Path], vectors: "list[Tensor]") -> None:
    """Appears whole or not at all."""
    import numpy as np

    staging = output.with_name(f".{output.name}.partial")
    try:
        if output.suffix == ".npz":
            arrays = {str(index): vector.numpy() for index, vector in enumerate(vectors)}
            with staging.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type] # its keywords are arrays
        else:
            with staging.open("w", encoding="utf-8") as lines:
                for item, vector in zip(inputs, vectors, strict=True):
                    record = {"input": str(item), "embedding": vector.tolist()}
                    lines.write(json.dumps(record, ensure_ascii=False) + "\n")
        staging.replace(output)
    finally:
        staging.unlink(missing_ok=True)
