"""Whole checkpoints against PEFT's merge_and_unload, tensor by tensor and bit by bit."""

from pathlib import Path

import peft
import pytest
import torch

from merge_tools import MismatchError, merge, plan_merge, resolve_source
from tests.merge.builders import edit_json, loaded, merged_by_peft, new_name, save_peft_adapter

TEXT = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONFIGS = {
    "plain": peft.LoraConfig(r=4, lora_alpha=10, target_modules=["q_proj", "v_proj"]),
    "rslora": peft.LoraConfig(r=8, lora_alpha=20, target_modules=TEXT, use_rslora=True),
    "patterns": peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=TEXT,
        exclude_modules=r".*visual.*",
        rank_pattern={"down_proj": 2, r"layers\.1\.self_attn\.q_proj": 6},
        alpha_pattern={"k_proj": 3, r".*layers\.0\.mlp\.(gate|up)_proj": 5},
    ),
    "vision and merger": peft.LoraConfig(
        r=4, lora_alpha=12, target_modules=r".*visual\.(blocks.*(qkv|attn\.proj)|merger\.mlp\.[02])"
    ),
    "all-linear": peft.LoraConfig(r=2, lora_alpha=3, target_modules="all-linear"),
    "some layers": peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["o_proj", "gate_proj"],
        layers_to_transform=[0, 2],
        layers_pattern="layers",
        exclude_modules=r".*visual.*",
    ),
    "modules to save": peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj"], modules_to_save=["norm", "merger"]
    ),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_merged_peft_directory_equals_pefts_own_merge_bit_for_bit(
    kind: str, dtype: str, qwen_base: Path, tmp_path: Path
) -> None:
    adapter = save_peft_adapter(tmp_path / "mine", qwen_base, CONFIGS[kind])
    merge(plan_merge(resolve_source(adapter), dtype=dtype), tmp_path / "out")
    got = loaded(tmp_path / "out" / "mine")
    expected = merged_by_peft(qwen_base, adapter, getattr(torch, dtype))

    seen = 0
    for name, tensor in expected.items():
        if name != "lm_head.weight":  # tied
            assert torch.equal(got[name], tensor), name
            seen += 1
    assert seen == len(got) == 92


def test_the_untouched_and_the_touched_are_counted_as_peft_sees_them(
    qwen_base: Path, tmp_path: Path
) -> None:
    adapter = save_peft_adapter(tmp_path / "mine", qwen_base, CONFIGS["some layers"])
    plan = plan_merge(resolve_source(adapter))
    touched = {tensor.canonical for tensor in plan.tensors if tensor.is_touched}
    assert touched == {
        f"model.language_model.layers.{layer}.{module}.weight"
        for layer in (0, 2)
        for module in ("self_attn.o_proj", "mlp.gate_proj")
    }


def test_an_adapter_in_bfloat16_on_a_float32_merge_equals_pefts(
    qwen_base: Path, tmp_path: Path
) -> None:
    adapter = save_peft_adapter(
        tmp_path / "mine", qwen_base, CONFIGS["rslora"], dtype=torch.bfloat16
    )
    merge(plan_merge(resolve_source(adapter), dtype="float32"), tmp_path / "out")
    got = loaded(tmp_path / "out" / "mine")
    expected = merged_by_peft(qwen_base, adapter, torch.float32)
    seen = 0
    for name, tensor in got.items():
        assert torch.equal(tensor, expected[name]), name
        seen += 1
    assert seen == 92


def test_a_rank_that_the_config_does_not_say_is_a_mismatch(qwen_base: Path, tmp_path: Path) -> None:
    adapter = save_peft_adapter(tmp_path / "mine", qwen_base, CONFIGS["patterns"])
    edit_json(adapter / "adapter_config.json", rank_pattern={})
    with pytest.raises(MismatchError, match=r"has shape \(2, .*expected \(4, .*\(rank 4 from"):
        plan_merge(resolve_source(adapter))


def test_the_output_keeps_the_bases_spelling(qwen_base: Path, tmp_path: Path) -> None:
    adapter = save_peft_adapter(tmp_path / "mine", qwen_base, CONFIGS["plain"])
    plan = plan_merge(resolve_source(adapter))
    stored = {tensor.base.name for tensor in plan.tensors}
    placed = {tensor.name for file in plan.files for tensor in file.tensors}
    assert placed == stored
    assert {new_name(name) for name in stored} == {tensor.canonical for tensor in plan.tensors}
