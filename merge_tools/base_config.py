"""The base model's config.json: which architecture it is, and every size that names a tensor.

Refuses what is not Qwen2.5-VL or is quantised, by name. Deliberately knows no tensor and no file
other than config.json; the rewritten config of the output is made in sidecars.
"""

from dataclasses import dataclass
from pathlib import Path

from merge_tools.errors import SourceNotFound, UnsupportedBase
from merge_tools.jsonfile import JsonObject, read_json_object

__all__ = ["BaseConfig", "SpecialIds", "TextSizes", "VisionSizes", "read_base_config"]

JINA = "JinaEmbeddingsV4Model"
QWEN = "Qwen2_5_VLForConditionalGeneration"
MODEL_TYPE = "qwen2_5_vl"
KNOWN_ARCHITECTURES = (JINA, QWEN)


@dataclass(frozen=True, slots=True)
class TextSizes:
    """Sizes of the language model."""

    hidden: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    intermediate: int
    vocabulary: int
    max_positions: int


@dataclass(frozen=True, slots=True)
class VisionSizes:
    """Sizes of the vision tower and its merger."""

    hidden: int
    depth: int
    intermediate: int
    out_hidden: int
    in_channels: int
    patch: int
    temporal_patch: int
    spatial_merge: int


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Token ids of the image markers."""

    vision_start: int
    vision_end: int
    image_pad: int


@dataclass(frozen=True, slots=True)
class BaseConfig:
    """What merging needs of config.json; `json` is the whole of it, for the output's copy."""

    json: JsonObject
    architecture: str
    text: TextSizes
    vision: VisionSizes
    special_ids: SpecialIds
    tied: bool
    task_names: tuple[str, ...]
    matryoshka_dims: tuple[int, ...]
    name: str | None


def read_base_config(root: Path) -> BaseConfig:
    """Reads and checks `root`/config.json.

    Raises:
        SourceNotFound: there is no config.json.
        UnsupportedBase: another architecture, a quantised model, or a size that is missing.
    """
    path = root / "config.json"
    if not path.exists():
        raise SourceNotFound(
            f"{root} has no config.json. Point to the directory of the base model."
        )
    config = read_json_object(path, error=UnsupportedBase)
    architecture = _architecture(config)
    if "quantization_config" in config:
        raise UnsupportedBase(
            f"{path} has a quantization_config: deltas cannot be added to quantised weights. "
            "Use the unquantised checkpoint."
        )
    text = config.optional_nested("text_config") or config
    sizes = _text_sizes(text)
    dims = config.integers("matryoshka_dims") or (sizes.hidden,)
    return BaseConfig(
        json=config,
        architecture=architecture,
        text=sizes,
        vision=_vision_sizes(config.nested("vision_config"), sizes),
        special_ids=SpecialIds(
            vision_start=config.integer("vision_start_token_id"),
            vision_end=config.integer("vision_end_token_id"),
            image_pad=config.integer("image_token_id"),
        ),
        tied=_is_tied(config, text),
        task_names=config.texts("task_names"),
        matryoshka_dims=dims,
        name=config.optional_text("_name_or_path"),
    )


def _architecture(config: JsonObject) -> str:
    names = config.texts("architectures")
    model_type = config.optional_text("model_type")
    if len(names) > 1 or any(name not in KNOWN_ARCHITECTURES for name in names):
        raise UnsupportedBase(
            f"{config.where} says architectures {list(names)}; only "
            f"{' and '.join(KNOWN_ARCHITECTURES)} are merged. Use a Qwen2.5-VL base."
        )
    is_known = names == (JINA,) or model_type in (None, MODEL_TYPE)
    if not is_known or (not names and model_type != MODEL_TYPE):
        raise UnsupportedBase(
            f"{config.where} says model_type {model_type!r}, expected {MODEL_TYPE!r}. "
            "Use a Qwen2.5-VL base."
        )
    return names[0] if names else QWEN


def _is_tied(config: JsonObject, text: JsonObject) -> bool:
    """As transformers 5 decides: tied if either place says so; before it, tied if neither does."""
    field = "tie_word_embeddings"
    if field not in config and field not in text:
        return True
    return config.boolean(field, default=False) or text.boolean(field, default=False)


def _text_sizes(text: JsonObject) -> TextSizes:
    heads = text.integer("num_attention_heads")
    sizes = TextSizes(
        hidden=text.integer("hidden_size"),
        num_layers=text.integer("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=text.integer("num_key_value_heads", heads),
        intermediate=text.integer("intermediate_size"),
        vocabulary=text.integer("vocab_size"),
        max_positions=text.integer("max_position_embeddings"),
    )
    if sizes.num_heads < 1 or sizes.hidden % sizes.num_heads:
        raise UnsupportedBase(
            f"{text.where}: hidden_size {sizes.hidden} is not a multiple of "
            f"num_attention_heads {sizes.num_heads}. Fetch the config again."
        )
    return sizes


def _vision_sizes(vision: JsonObject, text: TextSizes) -> VisionSizes:
    # `in_chans` is the field's older name; transformers writes both.
    return VisionSizes(
        hidden=vision.integer("hidden_size"),
        depth=vision.integer("depth"),
        intermediate=vision.integer("intermediate_size"),
        out_hidden=vision.integer("out_hidden_size", text.hidden),
        in_channels=vision.integer("in_channels", vision.integer("in_chans", 3)),
        patch=vision.integer("patch_size", 14),
        temporal_patch=vision.integer("temporal_patch_size", 2),
        spatial_merge=vision.integer("spatial_merge_size", 2),
    )
