"""The merged golden checkpoint in stock transformers, against what the original code computed."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from merge_tools import merge, plan_merge, resolve_source
from tests.merge.builders import TASKS, golden_adapter, golden_base, loaded, new_spelling
from tests.paths import GOLDEN_CHECKPOINT, GOLDEN_OUTPUTS


def merge_golden(out: Path, dtype: str) -> Path:
    merge(plan_merge(resolve_source(GOLDEN_CHECKPOINT), dtype=dtype), out)
    return out


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def merged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merge_golden(tmp_path_factory.mktemp("golden") / request.param, request.param)


def unit(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors.double(), dim=-1).numpy()


def inputs_of(path: Path, task: str) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Every text and prompt and every image, as the checkpoint's own processor and prompts say."""
    listed = json.loads((GOLDEN_OUTPUTS / "inputs.json").read_text(encoding="utf-8"))
    manifest = json.loads((path / "polyvec.json").read_text(encoding="utf-8"))
    processor = AutoProcessor.from_pretrained(path)
    for name, prompt in manifest["prompts"].items():
        for number, text in enumerate(listed["texts"]):
            inputs = processor(text=[prompt + text], return_tensors="pt")
            yield f"{task}/{name}/text_{number}", inputs
    for number, file in enumerate(listed["images"]):
        with Image.open(GOLDEN_OUTPUTS / file) as image:
            inputs = processor(
                text=[manifest["image_prompt"]],
                images=[image.convert("RGB")],
                return_tensors="pt",
            )
        yield f"{task}/image_{number}", inputs


@pytest.mark.parametrize("task", TASKS)
def test_transformers_reproduces_the_golden_vectors(merged: Path, task: str) -> None:
    path = merged / task
    # In float32 either way: the bounds of a bfloat16 merge are those of its rounded weights.
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
    projector = load_file(path / "multi_vector_projector.safetensors")
    weight, bias = projector["weight"].float(), projector["bias"].float()
    single_bound, multi_bound = (1e-5, 1e-4) if merged.name == "float32" else (5e-4, 5e-3)
    seen = 0
    with np.load(GOLDEN_OUTPUTS / "golden.npz") as golden, torch.inference_mode():
        for name, inputs in inputs_of(path, task):
            if f"{name}/single" not in golden:
                continue
            ids = inputs["input_ids"][0]
            assert ids.tolist() == golden[f"{name}/ids"].tolist(), name
            states = model.model(**inputs).last_hidden_state[0]
            span = states
            if "image" in name:
                start, end = ((ids == model.config.vision_start_token_id).nonzero().item(),
                              (ids == model.config.vision_end_token_id).nonzero().item())  # fmt: skip
                span = states[start : end + 1]
            single = unit(span.mean(0))
            multi = unit(states @ weight.T + bias)
            assert 1 - single @ golden[f"{name}/single"].astype(np.float64) <= single_bound, name
            worst = (multi * golden[f"{name}/multi"].astype(np.float64)).sum(-1).min()
            assert 1 - worst <= multi_bound, name
            seen += 1
    assert seen >= 17


@pytest.mark.parametrize("task", TASKS)
def test_stock_transformers_loads_every_tensor_and_no_other(merged: Path, task: str) -> None:
    model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        merged / task, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert str(model.dtype) == f"torch.{merged.name}"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_every_element_follows_the_formula_and_nothing_else_changes(
    dtype: str, tmp_path: Path
) -> None:
    out = merge_golden(tmp_path / "out", dtype)
    base, adapter = golden_base(), golden_adapter()
    target = getattr(torch, dtype)
    touched = untouched = 0
    for task in TASKS:
        got = loaded(out / task)
        assert got.keys() == {new_spelling(name) for name in base}
        for name, weight in base.items():
            module = f"base_model.model.{new_spelling(name).removesuffix('.weight')}"
            expected = weight
            if f"{module}.lora_A.{task}.weight" in adapter and name.endswith(".weight"):
                a = adapter[f"{module}.lora_A.{task}.weight"].float()
                b = adapter[f"{module}.lora_B.{task}.weight"].float()
                expected = weight.float() + 2.0 * (b @ a)
                touched += 1
            else:
                untouched += 1
            assert torch.equal(got[new_spelling(name)], expected.to(target)), name
    assert (touched, untouched) == (3 * 22, 3 * 72)
