"""A LoRA adapter that is not merged: what it costs to leave one beside a merged checkpoint's weights.

Of the model's rank, on the projections of every layer of the language model, with seeded weights, in PEFT's files. PEFT
(the transformers contender) and vLLM (vllm-lora) load the same one, so their vectors are comparable. It knows
neither of them.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.checkpoint import text_config
from benchmarks.turns import UnavailableError

RANK = 32
"""As many as each of the model's own adapters has."""

_TARGETS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


def write_adapter(checkpoint: Path, directory: Path, seed: int = 0) -> None:
    """Write an adapter for the merged checkpoint into `directory`.

    Raises:
        UnavailableError: the checkpoint's language model has no layers.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    text = text_config(checkpoint)
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for layer in range(text["num_hidden_layers"]):
        for name, (fan_in, fan_out) in _projections(text).items():
            prefix = f"base_model.model.model.language_model.layers.{layer}.{name}"
            tensors[f"{prefix}.lora_A.weight"] = _drawn(RANK, fan_in, generator)
            tensors[f"{prefix}.lora_B.weight"] = _drawn(fan_out, RANK, generator)
    if not tensors:
        raise UnavailableError("the checkpoint has no layers that an adapter could stand beside.")
    save_file(tensors, directory / "adapter_model.safetensors")
    config = LoraConfig(
        r=RANK,
        lora_alpha=RANK,
        target_modules=_TARGETS,
        base_model_name_or_path=str(checkpoint),
        inference_mode=True,
    )
    config.save_pretrained(str(directory))


def _projections(text: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each, by its name in a layer."""
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    head = hidden // text["num_attention_heads"]
    keys = head * text["num_key_value_heads"]
    return {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden, keys),
        "self_attn.v_proj": (hidden, keys),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }


def _drawn(fan_out: int, fan_in: int, generator: torch.Generator) -> Tensor:
    """Uniform, as PEFT draws both matrices without its zero start: large enough to change every vector."""
    bound = 1 / math.sqrt(fan_in)
    return (torch.rand(fan_out, fan_in, generator=generator) * 2 - 1) * bound
