"""What is compared, as a user writes it: `merged/retrieval@dtype=bfloat16,dimensions=256,precision=int8`.

Knows the grammar and which specs one run of an engine can answer; starts nothing.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self, get_args

from benchmarks.quality.errors import SpecError
from benchmarks.quality.representation import Precision, Representation, Vectors
from serving import TaskError
from serving.manifest import Dtype, Manifest, find_tasks, read_manifest

_OPTIONS = re.compile(r"@(?=\w+=)")
_CHOICES = {
    "dtype": get_args(Dtype),
    "precision": get_args(Precision),
    "vectors": get_args(Vectors),
}
_KEYS = (*_CHOICES, "dimensions", "task")


@dataclass(frozen=True, slots=True)
class EngineRun:
    """What an engine is started for: the same run serves every spec that has the same one.

    Attributes:
        directory: of one merged task.
        dtype: arithmetic of the model.
    """

    directory: Path
    dtype: Dtype


@dataclass(frozen=True, slots=True)
class Spec:
    """One side of a comparison.

    Attributes:
        text: as it was written.
        task: the adapter.
        run: the engine that makes its vectors.
        representation: what is kept of them.
    """

    text: str
    task: str
    run: EngineRun
    representation: Representation

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `PATH`, or `PATH@key=value,...` with dtype, dimensions, precision, vectors, task.

        Raises:
            SpecError: an unknown key or value.
            CheckpointError: there is no merged checkpoint at PATH.
            TaskError: PATH holds several tasks and none was named, or not the one that was.
        """
        path, *options = _OPTIONS.split(text, maxsplit=1)
        values = _values(text, options[0] if options else "")
        task, directory = _directory(path, values.get("task"))
        manifest = read_manifest(directory)
        dtype: Dtype = values.get("dtype", manifest.dtype)  # type: ignore[assignment] # checked
        representation = Representation(
            vectors=values.get("vectors", "single"),  # type: ignore[arg-type] # checked
            dimensions=_dimensions(text, values.get("dimensions"), manifest),
            precision=values.get("precision", "float32"),  # type: ignore[arg-type] # checked
        )
        if representation.vectors == "multi" and manifest.multi_vector_dim is None:
            raise SpecError(f"{text}: the checkpoint was merged without a projector. Use single.")
        return cls(text, task, EngineRun(directory.resolve(), dtype), representation)


def _values(text: str, options: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in filter(None, options.split(",")):
        key, _, value = part.partition("=")
        if key not in _KEYS or key in values:
            raise SpecError(
                f"{text}: {part!r} is not an option; each of {', '.join(_KEYS)} may be given once, as KEY=VALUE."
            )
        allowed = _CHOICES.get(key)
        if allowed is not None and value not in allowed:
            raise SpecError(f"{text}: {key} is one of {', '.join(allowed)}, not {value!r}.")
        values[key] = value
    return values


def _dimensions(text: str, value: str | None, manifest: Manifest) -> int | None:
    if value is None:
        return None
    if not value.isdecimal() or not 1 <= int(value) <= manifest.hidden_size:
        raise SpecError(
            f"{text}: dimensions is a count from 1 to {manifest.hidden_size}, not {value!r}."
        )
    return int(value)


def _directory(path: str, task: str | None) -> tuple[str, Path]:
    found = find_tasks(path, None if task is None else [task])
    if len(found) > 1:
        raise TaskError(
            f"{path} holds several tasks. Name one: {path}/TASK or {path}@task=TASK, with TASK one of "
            f"{sorted(found)}."
        )
    return next(iter(found.items()))
