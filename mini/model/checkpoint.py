"""Trained weights as a checkpoint in the layout of jina-embeddings-v4.

Two shards with the old spelling of names, one adapter file for all tasks with the new one, and the small files beside
them. Knows names and files, not how weights are learned.
"""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mini.model import shapes
from mini.model.pixels import MEAN, STD
from mini.model.shapes import token_id

TASKS = ("retrieval", "text-matching", "code")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
_ADAPTER = "adapter_model.safetensors"
_LORA = re.compile(r"\.lora_[AB]\.")


def write_checkpoint(
    base: dict[str, Tensor],
    adapted: dict[str, Tensor],
    lora_config: dict[str, object],
    tokenizer: Path,
    out: Path,
) -> None:
    """Write the checkpoint to `out`, in bfloat16.

    Args:
        base: state of the base, as transformers names it.
        adapted: state of the base with its projector and adapters, as PEFT names it.
        lora_config: what adapter_config.json says.
        tokenizer: directory of the tokenizer's files.
        out: a directory that is made.
    """
    (out / "adapters").mkdir(parents=True)
    projector = {
        f"multi_vector_projector.{part}": adapted[
            f"base_model.model.multi_vector_projector.base_layer.{part}"
        ]
        for part in ("weight", "bias")
    }
    stored = {
        _old_name(name): tensor for name, tensor in base.items() if not name.startswith("lm_head.")
    }
    _write_shards({**stored, **projector}, out)
    lora = {name: tensor for name, tensor in adapted.items() if _LORA.search(name)}
    _save(lora, out / "adapters" / _ADAPTER)
    _write_json(lora_config, out / "adapters" / "adapter_config.json")
    _write_json(_config(), out / "config.json")
    _write_json(_preprocessor(), out / "preprocessor_config.json")
    for name in _TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, out / name)


def _old_name(name: str) -> str:
    """The spelling of Qwen2.5-VL's first release: model.visual.x is visual.x, and so on."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def _write_shards(tensors: dict[str, Tensor], out: Path) -> None:
    names = sorted(tensors)
    vision = [name for name in names if name.startswith("visual.")]
    rest = [name for name in names if not name.startswith("visual.")]
    where = {}
    for number, part in enumerate((rest, vision), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        _save({name: tensors[name] for name in part}, out / file)
        where.update(dict.fromkeys(part, file))
    total = 2 * sum(tensor.numel() for tensor in tensors.values())
    _write_json(
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))},
        out / "model.safetensors.index.json",
    )


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    rounded = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}
    save_file(rounded, path, metadata={"format": "pt"})


def _write_json(content: object, path: Path) -> None:
    path.write_text(json.dumps(content, indent=2, default=_plain) + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    if isinstance(value, Iterable):
        return sorted(value)
    return str(value)


def _config() -> dict[str, object]:
    """config.json: the text model's fields at the top, as in the original, and again inside."""
    text = {
        **shapes.TEXT,
        "rope_theta": shapes.ROPE_THETA,
        "rope_scaling": {
            "mrope_section": shapes.MROPE_SECTION,
            "rope_type": "default",
            "type": "default",
        },
        "max_window_layers": shapes.TEXT["num_hidden_layers"],
        "sliding_window": None,
    }
    return {
        "architectures": ["JinaEmbeddingsV4Model"],
        "auto_map": {
            "AutoConfig": "configuration_jina_embeddings_v4.JinaEmbeddingsV4Config",
            "AutoModel": "modeling_jina_embeddings_v4.JinaEmbeddingsV4Model",
        },
        **text,
        "image_token_id": token_id("<|image_pad|>"),
        "video_token_id": token_id("<|video_pad|>"),
        "vision_start_token_id": token_id("<|vision_start|>"),
        "vision_end_token_id": token_id("<|vision_end|>"),
        "vision_token_id": token_id("<|vision_pad|>"),
        "multi_vector_projector_dim": shapes.MULTI_VECTOR_DIM,
        "single_vector_pool_strategy": "mean",
        "task_names": list(TASKS),
        "matryoshka_dims": list(shapes.MATRYOSHKA_DIMS),
        "truncate_dim": None,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.52.0",
        "text_config": {**text, "model_type": "qwen2_5_vl_text", "torch_dtype": "bfloat16"},
        "vision_config": {
            **shapes.VISION,
            "model_type": "qwen2_5_vl",
            "torch_dtype": "bfloat16",
        },
    }


def _preprocessor() -> dict[str, object]:
    return {
        "auto_map": {"AutoProcessor": "modeling_jina_embeddings_v4.JinaEmbeddingsV4Processor"},
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "JinaEmbeddingsV4Processor",
        "video_processor_type": "Qwen2VLVideoProcessor",
        "min_pixels": shapes.MIN_PIXELS,
        "max_pixels": shapes.MAX_PIXELS,
        "size": {"shortest_edge": shapes.MIN_PIXELS, "longest_edge": shapes.MAX_PIXELS},
        "merge_size": 2,
        "patch_size": shapes.PATCH,
        "temporal_patch_size": 2,
        "resample": 3,
        "rescale_factor": 1 / 255,
    }


def read_checkpoint(directory: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What `write_checkpoint` wrote, in float32: the base's state, and that of projector and adapters."""
    stored: dict[str, Tensor] = {}
    for shard in sorted(directory.glob("model-*.safetensors")):
        stored |= load_file(shard)
    adapted = {name: t.float() for name, t in load_file(directory / "adapters" / _ADAPTER).items()}
    # PEFT's state has the adapter's name inside that of the layer, as the file does.
    for part in ("weight", "bias"):
        adapted[f"base_model.model.multi_vector_projector.base_layer.{part}"] = stored.pop(
            f"multi_vector_projector.{part}"
        ).float()
    return {_new_name(name): tensor.float() for name, tensor in stored.items()}, adapted


def _new_name(name: str) -> str:
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1)
