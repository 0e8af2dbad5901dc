"""What stands beside the weights of a synthetic checkpoint: configs and tokenizer.

Fields that no shape changes are copied from the golden checkpoint, so that they are the real
model's. It knows nothing of tensors.

The tokenizer is byte-level BPE with the golden checkpoint's merges. Its special tokens stand at the
shape's own ids; the ids between the merges and them belong to filler tokens, which no merge makes
and no text gives.
"""

import json
import shutil
from pathlib import Path

from benchmarks.synthetic_plan import TASKS, Shape

TEMPLATE = Path(__file__).parent.parent / "tests" / "golden" / "jina-v4-mini"

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""In the order of their ids, from the shape's `first_special_id` on."""

COPIED = ("merges.txt", "special_tokens_map.json", "preprocessor_config.json")


def special_ids(shape: Shape) -> dict[str, int]:
    """The id of every special token."""
    return {token: shape.first_special_id + place for place, token in enumerate(SPECIAL_TOKENS)}


def write_config(directory: Path, shape: Shape, dtype_name: str) -> None:
    """Writes `config.json`: the wrapper's class, both towers, the special ids, the tasks."""
    config = json.loads((TEMPLATE / "config.json").read_text())
    ids = special_ids(shape)
    text = {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "max_window_layers": shape.max_window_layers,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "torch_dtype": dtype_name,
        "vocab_size": shape.vocabulary,
    }
    # The top level repeats the text model's fields, as the publisher's file does.
    for section in (config, config["text_config"]):
        section.update(text)
        section["rope_scaling"]["mrope_section"] = list(shape.mrope_section)
    config.update(
        {
            "image_token_id": ids["<|image_pad|>"],
            "video_token_id": ids["<|video_pad|>"],
            "vision_start_token_id": ids["<|vision_start|>"],
            "vision_end_token_id": ids["<|vision_end|>"],
            "vision_token_id": ids["<|vision_pad|>"],
            "multi_vector_projector_dim": shape.projector_dim,
            "matryoshka_dims": list(shape.matryoshka_dims),
            "task_names": list(TASKS),
        }
    )
    config["vision_config"].update(
        {
            "depth": shape.vision_depth,
            "fullatt_block_indexes": list(shape.full_attention_blocks),
            "hidden_size": shape.vision_hidden,
            "intermediate_size": shape.vision_intermediate,
            "num_heads": shape.vision_heads,
            "out_hidden_size": shape.hidden,
            "torch_dtype": dtype_name,
        }
    )
    _write_json(directory / "config.json", config)


def write_adapter_config(directory: Path, shape: Shape) -> None:
    """Writes `adapter_config.json`: rank and alpha for every target of every task."""
    config = json.loads((TEMPLATE / "adapters" / "adapter_config.json").read_text())
    config.update({"r": shape.lora_rank, "lora_alpha": shape.lora_alpha})
    _write_json(directory / "adapter_config.json", config)


def write_tokenizer(directory: Path, shape: Shape) -> None:
    """Writes the tokenizer in all the files that loaders look for, and the image processor's."""
    vocabulary = json.loads((TEMPLATE / "vocab.json").read_text())
    for filler_id in range(len(vocabulary), shape.first_special_id):
        vocabulary[f"<filler_{filler_id}>"] = filler_id
    ids = special_ids(shape)
    details = {"single_word": False, "lstrip": False, "rstrip": False}
    details |= {"normalized": False, "special": True}

    tokenizer = json.loads((TEMPLATE / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = vocabulary
    tokenizer["added_tokens"] = [{"id": ids[t], "content": t, **details} for t in SPECIAL_TOKENS]
    _write_json(directory / "tokenizer.json", tokenizer)

    config = json.loads((TEMPLATE / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {
        str(ids[t]): {"content": t, **details} for t in SPECIAL_TOKENS
    }
    _write_json(directory / "tokenizer_config.json", config)

    _write_json(directory / "vocab.json", vocabulary)
    _write_json(directory / "added_tokens.json", ids)
    for name in COPIED:
        shutil.copyfile(TEMPLATE / name, directory / name)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
