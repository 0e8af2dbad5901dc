"""What a merged checkpoint says of itself: `polyvec.json`, read and checked.

Serving takes every model-specific number and string from here. This module knows the file's fields and
where it lies; it does not know how the checkpoint was made, and reads no weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.errors import CheckpointError, TaskError

MANIFEST_NAME = "polyvec.json"

Dtype = Literal["bfloat16", "float16", "float32"]
Positive = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    # A field that nobody reads is a field that would be silently lost.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class SpecialTokenIds(_Strict):
    """Ids of the tokens that mark an image in a prompt."""

    vision_start: int
    vision_end: int
    image_pad: int


class ImageSpec(_Strict):
    """How an image becomes patches; all in pixels.

    One image token stands for a square of `patch_size * merge_size` pixels.
    """

    patch_size: Positive
    merge_size: Positive
    min_pixels: Positive
    max_pixels: Positive
    max_aspect_ratio: Annotated[float, Field(ge=1)]

    @property
    def token_edge(self) -> int:
        """Edge in pixels of the square that one image token covers."""
        return self.patch_size * self.merge_size


class AdapterRecord(_Strict):
    """The adapter that was merged; one value each where all modules share it."""

    name: str
    rank: int | None
    alpha: float | None
    scale: float | None


class SourceRecord(_Strict):
    """Where the weights came from."""

    name: str
    revision: str | None


class MergeRecord(_Strict):
    """How the checkpoint was made; serving only reports it."""

    formula: str
    source: SourceRecord
    adapter: AdapterRecord
    num_touched: int
    num_untouched: int


class FileRecord(_Strict):
    """Size and digest of one file of the checkpoint."""

    bytes: int
    xxh3_128: str


class TensorRecord(_Strict):
    """Place, type and digests of one tensor of the checkpoint."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    touched: bool
    xxh3_128: str
    source_xxh3_128: str | None


class Manifest(_Strict):
    """`polyvec.json` of one merged task."""

    manifest_version: Literal[1]
    polyvec_version: str
    task: str
    model: str
    dtype: Dtype
    hidden_size: Positive
    matryoshka_dims: tuple[Positive, ...]
    multi_vector_dim: Positive | None
    max_text_tokens: Positive
    prompts: dict[str, str]
    default_prompt: str
    image_prompt: str
    special_token_ids: SpecialTokenIds
    image: ImageSpec
    merge: MergeRecord
    files: dict[str, FileRecord]
    tensors: dict[str, TensorRecord]


def read_manifest(directory: Path) -> Manifest:
    """Read `directory/polyvec.json`.

    Raises:
        CheckpointError: the file is missing, is not valid, or is of a version this release does not know.
    """
    path = directory / MANIFEST_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}).") from error
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise CheckpointError(
            f"{path} is not a manifest this release can read: {field}: {first['msg']} "
            "Merge the checkpoint again with this release of polyvec."
        ) from error
    if manifest.default_prompt not in manifest.prompts:
        raise CheckpointError(
            f"{path} names the default prompt {manifest.default_prompt!r}, "
            f"which is not among its prompts {sorted(manifest.prompts)}. Merge the checkpoint again."
        )
    return manifest


def find_tasks(path: str | Path, wanted: Sequence[str] | None = None) -> dict[str, Path]:
    """Map task name to checkpoint directory, for one merged task or a directory of several.

    Args:
        path: one or the other.
        wanted: the tasks to return, in this order; None returns all.

    Raises:
        CheckpointError: there is no merged checkpoint at `path`; the message says what is there.
        TaskError: a wanted task is not there.
    """
    found = _find_all(path)
    if wanted is None:
        return found
    wanted = [wanted] if isinstance(wanted, str) else wanted
    missing = [task for task in wanted if task not in found]
    if missing or not wanted:
        raise TaskError(
            f"{path} holds the tasks {sorted(found)}, not {missing or 'none'}. "
            "Merge what is missing: polyvec merge SOURCE OUT --task TASK."
        )
    return {task: found[task] for task in wanted}


def _find_all(path: str | Path) -> dict[str, Path]:
    # A Path has already lost one of the slashes.
    if "://" in str(path) or str(path).startswith(("http:", "https:")):
        raise CheckpointError(
            f"{path} is a URL. Serving reads a local directory that `polyvec merge` has written."
        )
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist. Make it with `polyvec merge SOURCE {path}`, "
            "where SOURCE is a jina-embeddings-v4 checkpoint (a directory or a hub id)."
        )
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is a file. Pass the directory that `polyvec merge` has written."
        )
    if (path / MANIFEST_NAME).is_file():
        return {read_manifest(path).task: path}
    tasks: dict[str, Path] = {}
    for found in sorted(path.glob(f"[!.]*/{MANIFEST_NAME}")):
        task = read_manifest(found.parent).task
        if task in tasks:
            raise CheckpointError(
                f"{tasks[task]} and {found.parent} are both the task {task!r}. Remove one of them."
            )
        tasks[task] = found.parent
    if not tasks:
        raise CheckpointError(_what_is_there(path))
    return tasks


def _what_is_there(path: Path) -> str:
    if (path / "adapters").is_dir():
        return (
            f"{path} is a checkpoint with adapters that are not merged yet. "
            f"Run `polyvec merge {path} OUT` and load OUT."
        )
    if (path / "adapter_config.json").is_file():
        return (
            f"{path} is a LoRA adapter, not a model. Run `polyvec merge {path} OUT` and load OUT."
        )
    if (path / "config.json").is_file():
        return (
            f"{path} is a checkpoint without {MANIFEST_NAME}: polyvec did not write it, or did not finish. "
            "Run `polyvec merge SOURCE OUT` and load OUT."
        )
    return (
        f"{path} holds no merged checkpoint (no {MANIFEST_NAME} in it or one level below). "
        "Run `polyvec merge SOURCE OUT` and load OUT."
    )
