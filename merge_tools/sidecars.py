"""The small files beside the weights: config, tokenizer, preprocessor, chat template.

They are copied as they are, but for what would make stock loaders run the base's own code or
stumble: config.json becomes an ordinary Qwen2.5-VL config in the output's dtype, and names of
custom classes become Qwen's. Deliberately knows no weight and no adapter.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from merge_tools.base_config import MODEL_TYPE, QWEN, BaseConfig
from merge_tools.dtypes import DType
from merge_tools.errors import UnsupportedBase
from merge_tools.images import (
    IMAGE_PROCESSOR,
    PREPROCESSOR_FILE,
    PROCESSOR_FILE,
    ImageSettings,
    read_image_settings,
)
from merge_tools.jsonfile import JsonObject, read_json_object

__all__ = ["Sidecars", "read_sidecars"]

PROCESSOR_CLASS = "Qwen2_5_VLProcessor"
# The parts of processor_config.json that transformers 5 nests in it, and the fields that name their
# classes.
_NESTED = (IMAGE_PROCESSOR, "video_processor")
_CLASSES = {
    "processor_class": PROCESSOR_CLASS,
    "image_processor_type": "Qwen2VLImageProcessor",
    "video_processor_type": "Qwen2VLVideoProcessor",
}

_COPIED = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
)
# Files in which the base may name its own classes.
_REWRITTEN = (
    PREPROCESSOR_FILE,
    "video_preprocessor_config.json",
    PROCESSOR_FILE,
    "tokenizer_config.json",
)
# Fields that only the base's own code reads, or that ask for software that may be absent:
# flash_attention_2 in config.json makes transformers raise ImportError without flash-attn.
_DROPPED = frozenset(
    [
        "auto_map",
        "_attn_implementation",
        "attn_implementation",
        "_attn_implementation_autoset",
        "_attn_implementation_internal",
        "_name_or_path",
        "task_names",
        "matryoshka_dims",
        "multi_vector_projector_dim",
        "single_vector_pool_strategy",
        "truncate_dim",
    ]
)
_SUBCONFIGS = ("text_config", "vision_config")
_MARKERS = {
    "<|vision_start|>": "vision_start",
    "<|vision_end|>": "vision_end",
    "<|image_pad|>": "image_pad",
}


@dataclass(frozen=True, slots=True)
class Sidecars:
    """The output's small files: `copied` from a path as they are, `texts` written anew."""

    copied: Mapping[str, Path]
    texts: Mapping[str, str]
    image: ImageSettings
    notes: tuple[str, ...]

    def with_text(self, name: str, text: str) -> "Sidecars":
        """The same with one more file."""
        return replace(self, texts={**self.texts, name: text})


def read_sidecars(root: Path, config: BaseConfig, dtype: DType) -> Sidecars:
    """Reads the base's small files and rewrites what must be.

    Raises:
        UnsupportedBase: config.json and the tokenizer disagree about a special token.
        SourceError: one of the files is malformed.
    """
    copied = {name: root / name for name in _COPIED if (root / name).is_file()}
    texts = {"config.json": _config_text(config, dtype)}
    for name in _REWRITTEN:
        if (root / name).is_file():
            texts[name] = _without_custom_classes(read_json_object(root / name))
    notes = []
    if not any(name in copied for name in ("tokenizer.json", "vocab.json")):
        notes.append("The base has no tokenizer files, so the output cannot be served.")
    else:
        _check_special_ids(root, config)
        if "tokenizer.json" not in copied:
            notes.append(
                "The base has vocab.json but no tokenizer.json. transformers and vLLM can load the "
                "output, but polyvec cannot serve it: it needs tokenizer.json. Save it into the "
                "base with AutoTokenizer.from_pretrained(base).save_pretrained(base) first."
            )
    image, image_notes = read_image_settings(root, config)
    return Sidecars(copied, texts, image, (*notes, *image_notes))


def _config_text(config: BaseConfig, dtype: DType) -> str:
    fields = {name: value for name, value in config.json.values.items() if name not in _DROPPED}
    # Older transformers read torch_dtype, newer ones dtype; the source's habit is kept.
    key = "dtype" if "dtype" in config.json and "torch_dtype" not in config.json else "torch_dtype"
    _set_dtype(fields, key, dtype)
    for name in _SUBCONFIGS:
        part = fields.get(name)
        if isinstance(part, dict):
            kept = {field: value for field, value in part.items() if field not in _DROPPED}
            _set_dtype(kept, key, dtype)
            fields[name] = kept
    fields["architectures"] = [QWEN]
    fields["model_type"] = MODEL_TYPE
    fields["tie_word_embeddings"] = config.tied
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def _set_dtype(fields: dict[str, object], key: str, dtype: DType) -> None:
    for name in {"dtype", "torch_dtype"} & fields.keys() or {key}:
        fields[name] = dtype.name


def _without_custom_classes(file: JsonObject) -> str:
    fields = _with_qwens_classes(file.values)
    for name in _NESTED:
        part = fields.get(name)
        if isinstance(part, dict):
            fields[name] = _with_qwens_classes(part)
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def _with_qwens_classes(values: Mapping[str, object]) -> dict[str, object]:
    fields = {name: value for name, value in values.items() if name != "auto_map"}
    for field, name in _CLASSES.items():
        # Qwen's own names differ by version ("...Fast"): those are kept.
        if field in fields and not str(fields[field]).startswith("Qwen2"):
            fields[field] = name
    return fields


def _check_special_ids(root: Path, config: BaseConfig) -> None:
    known = _added_tokens(root)
    for token, field in _MARKERS.items():
        expected = getattr(config.special_ids, field)
        got = known.get(token)
        if got is not None and got != expected:
            raise UnsupportedBase(
                f"config.json says {token} has id {expected}, the tokenizer in {root} says {got}. "
                "Files of two models are mixed: fetch the checkpoint again."
            )


def _added_tokens(root: Path) -> Mapping[str, int]:
    """Token to id, from the first file that lists added tokens."""
    if (root / "tokenizer_config.json").is_file():
        decoder = read_json_object(root / "tokenizer_config.json").optional_nested(
            "added_tokens_decoder"
        )
        if decoder is not None:
            return {
                decoder.nested(number).text("content"): int(number) for number in decoder.values
            }
    if (root / "added_tokens.json").is_file():
        added = read_json_object(root / "added_tokens.json")
        return {token: added.integer(token) for token in added.values}
    if (root / "tokenizer.json").is_file():
        listed = read_json_object(root / "tokenizer.json").raw("added_tokens")
        entries = listed if isinstance(listed, list) else []
        objects = [JsonObject("tokenizer.json", e) for e in entries if isinstance(e, dict)]
        return {entry.text("content"): entry.integer("id") for entry in objects}
    return {}
