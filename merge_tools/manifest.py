"""polyvec.json: what a merged checkpoint says about itself, written and read.

Serving reads the same file with a reader of its own; this module is the one place that writes it.
No path of the machine that merged is in it. Digests are defined in digest: a tensor's and a small
file's is xxh3_128 of its bytes (tensors in pieces), a weight file's is derived from its header and
its tensors' digests. They find corruption, not tampering.
Deliberately knows no file but its own.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from merge_tools.errors import NotACheckpoint
from merge_tools.jsonfile import JsonObject, read_json_object

__all__ = [
    "FORMULA",
    "MANIFEST_FILE",
    "AdapterRecord",
    "FileRecord",
    "ImageRecord",
    "Manifest",
    "MergeRecord",
    "SourceRecord",
    "SpecialTokenIds",
    "TensorRecord",
    "prompts_of",
    "read_manifest",
]

MANIFEST_FILE = "polyvec.json"
MANIFEST_VERSION = 1
FORMULA = "W' = round_to_dtype(W.float() + scale * (B.float() @ A.float())), rounded once"
IMAGE_PROMPT = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"
)
MAX_ASPECT_RATIO = 200
MAX_TEXT_TOKENS = 32768


def prompts_of(task: str) -> dict[str, str]:
    """Prompt name to the text put before a user's; text-matching has the same on both sides."""
    passage = "Query: " if task == "text-matching" else "Passage: "
    return {"query": "Query: ", "passage": passage}


@dataclass(frozen=True, slots=True)
class SpecialTokenIds:
    """Ids of the image markers."""

    vision_start: int
    vision_end: int
    image_pad: int


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """How images are cut and bounded."""

    patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    max_aspect_ratio: int = MAX_ASPECT_RATIO


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """The base: a hub id or a directory's last component, and the commit if known."""

    name: str
    revision: str | None


@dataclass(frozen=True, slots=True)
class AdapterRecord:
    """The adapter; rank, alpha and scale where all modules share them, else None."""

    name: str
    rank: int | None
    alpha: float | None
    scale: float | None


@dataclass(frozen=True, slots=True)
class MergeRecord:
    """How the weights came to be."""

    formula: str
    source: SourceRecord
    adapter: AdapterRecord
    num_touched: int
    num_untouched: int


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of the checkpoint, the manifest itself excepted."""

    bytes: int
    xxh3_128: str


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """One tensor: where it is, and digests of it and, if this task's merge changed it, of its base."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    touched: bool
    xxh3_128: str
    source_xxh3_128: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """All of polyvec.json, field by field."""

    manifest_version: int
    polyvec_version: str
    task: str
    model: str
    dtype: str
    hidden_size: int
    matryoshka_dims: tuple[int, ...]
    multi_vector_dim: int | None
    max_text_tokens: int
    prompts: Mapping[str, str]
    default_prompt: str
    image_prompt: str
    special_token_ids: SpecialTokenIds
    image: ImageRecord
    merge: MergeRecord
    files: Mapping[str, FileRecord]
    tensors: Mapping[str, TensorRecord]

    def to_json(self) -> str:
        """The text of polyvec.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def read_manifest(directory: Path) -> Manifest:
    """Reads `directory`/polyvec.json.

    Raises:
        NotACheckpoint: it is missing, malformed, or of another version.
    """
    path = directory / MANIFEST_FILE
    if not path.is_file():
        raise NotACheckpoint(
            f"{directory} has no {MANIFEST_FILE}, so it is not a merged checkpoint. "
            "Run polyvec merge, or point to OUT or OUT/<task> of a finished merge."
        )
    file = read_json_object(path, error=NotACheckpoint)
    version = file.integer("manifest_version")
    if version != MANIFEST_VERSION:
        raise NotACheckpoint(
            f"{path} has manifest_version {version}, expected {MANIFEST_VERSION}. "
            "Verify with the polyvec that merged it, or merge again."
        )
    prompts = file.nested("prompts")
    files = file.nested("files")
    tensors = file.nested("tensors")
    return Manifest(
        manifest_version=version,
        polyvec_version=file.text("polyvec_version"),
        task=file.text("task"),
        model=file.text("model"),
        dtype=file.text("dtype"),
        hidden_size=file.integer("hidden_size"),
        matryoshka_dims=file.integers("matryoshka_dims"),
        multi_vector_dim=(file.integer("multi_vector_dim") if "multi_vector_dim" in file else None),
        max_text_tokens=file.integer("max_text_tokens"),
        prompts={name: prompts.text(name) for name in prompts.values},
        default_prompt=file.text("default_prompt"),
        image_prompt=file.text("image_prompt"),
        special_token_ids=_special_ids(file.nested("special_token_ids")),
        image=_image(file.nested("image")),
        merge=_merge(file.nested("merge")),
        files={name: _file(files.nested(name)) for name in files.values},
        tensors={name: _tensor(tensors.nested(name)) for name in tensors.values},
    )


def _special_ids(file: JsonObject) -> SpecialTokenIds:
    return SpecialTokenIds(
        file.integer("vision_start"), file.integer("vision_end"), file.integer("image_pad")
    )


def _image(file: JsonObject) -> ImageRecord:
    return ImageRecord(
        file.integer("patch_size"),
        file.integer("merge_size"),
        file.integer("min_pixels"),
        file.integer("max_pixels"),
        file.integer("max_aspect_ratio"),
    )


def _merge(file: JsonObject) -> MergeRecord:
    source, adapter = file.nested("source"), file.nested("adapter")
    return MergeRecord(
        formula=file.text("formula"),
        source=SourceRecord(source.text("name"), source.optional_text("revision")),
        adapter=AdapterRecord(
            adapter.text("name"),
            adapter.integer("rank") if "rank" in adapter else None,
            adapter.number("alpha") if "alpha" in adapter else None,
            adapter.number("scale") if "scale" in adapter else None,
        ),
        num_touched=file.integer("num_touched"),
        num_untouched=file.integer("num_untouched"),
    )


def _file(file: JsonObject) -> FileRecord:
    return FileRecord(file.integer("bytes"), file.text("xxh3_128"))


def _tensor(file: JsonObject) -> TensorRecord:
    return TensorRecord(
        file=file.text("file"),
        dtype=file.text("dtype"),
        shape=file.integers("shape"),
        touched=file.boolean("touched"),
        xxh3_128=file.text("xxh3_128"),
        source_xxh3_128=file.optional_text("source_xxh3_128"),
    )
