"""Base plus unmerged adapter, and the merged checkpoint, as transformers and PEFT load them.

Deliberately compares nothing.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import ERROR
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from merge_tools.adapter import Adapter
from merge_tools.errors import CorruptShard
from merge_tools.lora_config import CONFIG_FILE
from merge_tools.names import PROJECTOR, canonical
from merge_tools.reading import Reader, values_of
from merge_tools.shards import StoredTensor

if TYPE_CHECKING:
    from peft import LoraConfig

__all__ = ["Model", "Output", "load_merged", "load_with_adapter"]


@runtime_checkable
class Output(Protocol):
    """What a forward pass returns."""

    last_hidden_state: Tensor


@runtime_checkable
class Model(Protocol):
    """The part of a loaded model that is used: the stack below the language-model head."""

    def __call__(self, **inputs: Tensor) -> Output:
        """Runs a forward pass."""


@runtime_checkable
class _LoadResult(Protocol):
    """What PEFT says of a loaded state."""

    unexpected_keys: Sequence[str]


def load_merged(checkpoint: Path) -> Model:
    """The merged checkpoint in float32; every weight must have found its place."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    loaded: object = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, output_loading_info=True
    )
    model, info = cast("tuple[torch.nn.Module, Mapping[str, Collection[str]]]", loaded)
    if info["missing_keys"] or info["unexpected_keys"]:
        raise CorruptShard(
            f"transformers finds missing {sorted(info['missing_keys'])} and unexpected "
            f"{sorted(info['unexpected_keys'])} in {checkpoint}. Verify it, then merge again."
        )
    return cast(Model, model.eval().get_submodule("model"))


def load_with_adapter(root: Path, adapter: Adapter, *, config_from: Path) -> Model:
    """The base in float32 with PEFT's LoRA layers on it, not merged.

    Args:
        root: the base's directory.
        adapter: the one adapter to load.
        config_from: a directory with the base's config in the form stock transformers reads.
    """
    import peft
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    with _without_load_report():
        base = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            root, config=Qwen2_5_VLConfig.from_pretrained(config_from), dtype=torch.float32
        )
    model = peft.get_peft_model(base, _peft_config(adapter))
    result = cast(_LoadResult, peft.set_peft_model_state_dict(model, _state(adapter)))
    if result.unexpected_keys:
        raise CorruptShard(f"PEFT does not understand {result.unexpected_keys} of {adapter.name}.")
    return cast(Model, model.eval().get_submodule("base_model.model.model"))


@contextmanager
def _without_load_report() -> Iterator[None]:
    """The base's projector is no part of Qwen2.5-VL, which transformers reports at length."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _peft_config(adapter: Adapter) -> "LoraConfig":
    """PEFT's own reading of the configuration, with the modules by their full, current names.

    Old adapters spell modules in a way that patterns may depend on, and transformers has renamed
    them since; rank and alpha are therefore given module by module too.
    """
    import peft

    fields = json.loads((adapter.directory / CONFIG_FILE).read_text(encoding="utf-8"))
    kept = {name: fields[name] for name in ("use_rslora", "modules_to_save") if name in fields}
    modules = [module for module in adapter.pairs if module != PROJECTOR]
    config = adapter.config
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # PEFT divides by r, so any number does
        target_modules=modules,
        rank_pattern={f"^{m}": config.rank_of(adapter.pairs[m].module) for m in modules},
        alpha_pattern={f"^{m}": config.alpha_of(adapter.pairs[m].module) for m in modules},
        inference_mode=True,
        **kept,
    )


def _state(adapter: Adapter) -> Mapping[str, Tensor]:
    state: dict[str, Tensor] = {}
    with Reader() as reader:
        for module, pair in adapter.pairs.items():
            if module != PROJECTOR:
                state[f"base_model.model.{module}.lora_A.weight"] = _whole(reader, pair.a)
                state[f"base_model.model.{module}.lora_B.weight"] = _whole(reader, pair.b)
        for name, tensor in adapter.replaced.items():
            state[f"base_model.model.{canonical(name)}"] = _whole(reader, tensor)
    return state


def _whole(reader: Reader, tensor: StoredTensor) -> Tensor:
    parts = [values.clone() for values in values_of(reader, tensor)]
    return torch.cat(parts).view(tensor.shape)
