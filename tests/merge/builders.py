"""Tiny real checkpoints and adapters: saved by transformers and PEFT, or cut out of the golden one."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from tests.paths import GOLDEN_CHECKPOINT

TASKS = ("retrieval", "text-matching", "code")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")
Rename = Callable[[str], str]


def golden_base() -> dict[str, Tensor]:
    """The golden base's tensors, old spelling."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(GOLDEN_CHECKPOINT.glob("model-*.safetensors")):
        tensors |= load_file(path)
    return tensors


def golden_adapter() -> dict[str, Tensor]:
    return load_file(GOLDEN_CHECKPOINT / "adapters" / "adapter_model.safetensors")


def copy_golden(out: Path) -> Path:
    shutil.copytree(GOLDEN_CHECKPOINT, out, ignore=shutil.ignore_patterns("golden"))
    for path in [out, *out.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return out


def edit_json(path: Path, **fields: object) -> None:
    """Sets fields of a JSON file; a value of None removes the field."""
    content = json.loads(path.read_text(encoding="utf-8")) | fields
    content = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_adapter(
    directory: Path, edit: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
) -> None:
    path = directory / "adapter_model.safetensors"
    save_file(dict(edit(load_file(path))), path, metadata={"format": "pt"})


def save_as_one_file(source: Path, tensors: Mapping[str, Tensor]) -> None:
    """Replaces a checkpoint's shards by one model.safetensors."""
    for path in [*source.glob("model-*.safetensors"), source / "model.safetensors.index.json"]:
        path.unlink(missing_ok=True)
    save_file(dict(tensors), source / "model.safetensors", metadata={"format": "pt"})


def new_spelling(name: str) -> str:
    if name.startswith("visual."):
        return f"model.{name}"
    if name.startswith("model."):
        return f"model.language_model.{name.removeprefix('model.')}"
    return name


def qwen_config(**changes: object) -> Qwen2_5_VLConfig:
    content = json.loads((GOLDEN_CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    for name in ("architectures", "auto_map"):
        del content[name]
    return Qwen2_5_VLConfig(**(content | changes))


def qwen_model(dtype: torch.dtype, *, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    """A randomly initialised tiny Qwen2.5-VL, every tensor different from zero and one."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(qwen_config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.to(dtype).eval()


def save_qwen_base(out: Path, dtype: torch.dtype) -> Path:
    """A plain Qwen2.5-VL directory as transformers itself saves it, with a tokenizer."""
    qwen_model(dtype).save_pretrained(out)
    for name in _TOKENIZER:
        shutil.copyfile(GOLDEN_CHECKPOINT / name, out / name)
    return out


def save_peft_adapter(
    out: Path, base: Path, config: peft.LoraConfig, *, dtype: torch.dtype = torch.float32
) -> Path:
    """An adapter as PEFT itself saves it, all factors random."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base)
    torch.manual_seed(1)
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(out)
    if dtype != torch.float32:
        edit_adapter(out, lambda state: {name: value.to(dtype) for name, value in state.items()})
    return out


def merged_by_peft(base: Path, adapter: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """What PEFT's default merge makes of base and adapter, by the model's own names."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype=dtype)
    merged = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return {name: tensor.detach() for name, tensor in merged.state_dict().items()}


def loaded(checkpoint: Path) -> dict[str, Tensor]:
    """All tensors of a merged checkpoint, names in new spelling, the projector's included."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(checkpoint.glob("model-*.safetensors")):
        tensors |= {new_name(name): tensor for name, tensor in load_file(path).items()}
    projector = checkpoint / "multi_vector_projector.safetensors"
    if projector.exists():
        tensors |= {f"multi_vector_projector.{k}": v for k, v in load_file(projector).items()}
    return tensors


def new_name(name: str) -> str:
    is_new = name.startswith(("model.language_model.", "model.visual."))
    return name if is_new else new_spelling(name)


def files_under(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
