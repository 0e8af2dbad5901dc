"""`polyvec encode`: a few vectors without writing Python."""

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from serving import PageImage
    from serving.inputs import Input

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
        list[str] | None, typer.Option(help="An image file to embed; repeatable.")
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
    from serving import Embedder, TaskError, Text
    from serving.manifest import find_tasks

    inputs: list[Input] = [*map(Text, _read(texts or [])), *map(_image, image or [])]
    if not inputs:
        raise typer.BadParameter("Nothing to embed: pass texts, '-' or --image FILE.")
    if output is not None:
        _check_output(output)
    found = sorted(find_tasks(model))
    if task is None:
        if len(found) > 1:
            raise TaskError(f"{model} holds several tasks. Pass --task, one of {found}.")
        task = found[0]
    _check_request(find_tasks(model, [task])[task], dim, prompt.value, multivector=multivector)
    with Embedder.load(model, tasks=[task]) as embedder:
        vectors = embedder.encode(
            inputs,
            task=task,
            prompt_name=prompt.value,
            return_multivector=multivector,
            truncate_dim=dim,
            convert_to_numpy=False,
        )
    names = [item.text if isinstance(item, Text) else str(item.source) for item in inputs]
    if output is None:
        for name, vector in zip(names, vectors, strict=True):
            print(_line(name, vector))
    else:
        _save(output, names, vectors)
        print(f"{output}: {len(vectors)} embeddings")


def _read(texts: list[str]) -> list[str]:
    if "-" not in texts:
        return texts
    at = texts.index("-")
    return [*texts[:at], *sys.stdin.read().splitlines(), *texts[at + 1 :]]


def _image(path: str) -> "PageImage":
    """An image that is there, before a minute is spent on starting the engine."""
    from serving.documents.regular_file import open_regular_file
    from serving.inputs import as_image

    image = as_image(path)
    if isinstance(image.source, Path):
        open_regular_file(image.source, path).close()
    return image


def _check_request(directory: Path, dim: int | None, prompt: str, *, multivector: bool) -> None:
    from serving import TaskError
    from serving.manifest import read_manifest

    manifest = read_manifest(directory)
    if prompt not in manifest.prompts:
        raise TaskError(f"--prompt must be one of {sorted(manifest.prompts)}, not {prompt!r}.")
    if dim is not None and multivector:
        raise TaskError("--dim is for single vectors; leave it out with --multivector.")
    if dim is not None and dim not in manifest.matryoshka_dims:
        raise TaskError(f"--dim must be one of {list(manifest.matryoshka_dims)}, not {dim}.")


def _check_output(output: Path) -> None:
    """Refuse a place that cannot be written to, before the engine is started."""
    if output.suffix not in {".npz", ".jsonl"}:
        raise typer.BadParameter(f"--output must end in .npz or .jsonl, not {output.name!r}.")
    if not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"{output.parent} does not exist. Create it first.")
    if not os.access(output.absolute().parent, os.W_OK):
        raise typer.BadParameter(f"{output.parent} cannot be written to.")


def _line(name: str, vector: "Tensor") -> str:
    name = name if len(name) <= 40 else name[:37] + "..."
    head = ", ".join(f"{value:+.4f}" for value in vector.flatten()[:_SHOWN].tolist())
    more = ", ..." if vector.numel() > _SHOWN else ""
    return f"{name}  {list(vector.shape)}  [{head}{more}]"


def _save(output: Path, names: list[str], vectors: "list[Tensor]") -> None:
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
                for name, vector in zip(names, vectors, strict=True):
                    record = {"input": name, "embedding": vector.tolist()}
                    lines.write(json.dumps(record, ensure_ascii=False) + "\n")
        staging.replace(output)
    finally:
        staging.unlink(missing_ok=True)
