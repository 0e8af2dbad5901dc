"""What is not merged is refused by its name, before anything is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from merge_tools import (
    AdapterConfigError,
    MergeToolsError,
    MismatchError,
    NonFiniteError,
    SourceError,
    TaskError,
    UnsupportedAdapter,
    UnsupportedBase,
    plan_merge,
    resolve_source,
)
from tests.merge.builders import edit_adapter, edit_json, golden_base, save_as_one_file

PREFIX = "base_model.model.model.language_model.layers.0.mlp.down_proj"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"bias": "lora_only"}, "biases"),
        ({"lora_bias": True}, "a bias inside the adapter"),
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"target_parameters": ["mlp.weight"]}, "target_parameters"),
        ({"use_qalora": True}, "QALoRA"),
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        ({"megatron_config": {"a": 1}}, "Megatron"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"a_field_of_the_future": 3}, "a_field_of_the_future"),
    ],
)
def test_an_unsupported_adapter_feature_is_named(
    fields: dict[str, object], named: str, mini: Path
) -> None:
    edit_json(mini / "adapters/adapter_config.json", **fields)
    with pytest.raises(UnsupportedAdapter, match=named):
        plan_merge(resolve_source(mini))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"r": None}, "lacks the field 'r'"),
        ({"r": "8"}, "'r' .* must be a whole number"),
        ({"r": 0}, "rank of r must be at least 1"),
        ({"lora_alpha": "a"}, "'lora_alpha' .* must be a number"),
        ({"rank_pattern": {"q_proj": 0}}, "rank of q_proj"),
        ({"target_modules": "([unclosed"}, "not a regular expression"),
        ({"target_modules": None}, "names no target_modules"),
        ({"peft_type": None}, "peft_type"),
    ],
)
def test_an_impossible_adapter_config_is_refused(
    fields: dict[str, object], named: str, mini: Path
) -> None:
    edit_json(mini / "adapters/adapter_config.json", **fields)
    with pytest.raises(AdapterConfigError, match=named):
        plan_merge(resolve_source(mini))


@pytest.mark.parametrize(
    ("key", "named"),
    [
        (f"{PREFIX}.lora_magnitude_vector.code", "DoRA"),
        (f"{PREFIX}.lora_B.bias", "a bias inside the adapter"),
        ("base_model.model.model.language_model.embed_tokens.lora_embedding_A.code", "embedding"),
        (f"{PREFIX}.hada_w1_a", "LoHa"),
        (f"{PREFIX}.ia3_l", "IA3"),
        (f"{PREFIX}.mystery", "neither a LoRA factor nor a saved module"),
        ("model.layers.0.mlp.down_proj.lora_A.code.weight", "keys begin with"),
    ],
)
def test_an_unknown_adapter_key_is_named(key: str, named: str, mini: Path) -> None:
    edit_adapter(mini / "adapters", lambda state: {**state, key: torch.zeros(8, 8)})
    with pytest.raises(UnsupportedAdapter, match=named):
        plan_merge(resolve_source(mini))


def test_keys_with_and_without_a_task_do_not_mix(mini: Path) -> None:
    key = f"{PREFIX}.lora_A.weight"
    edit_adapter(mini / "adapters", lambda state: {**state, key: torch.zeros(8, 160)})
    with pytest.raises(UnsupportedAdapter, match="mixes keys with and without a task"):
        plan_merge(resolve_source(mini))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
        ({"architectures": ["Qwen2VLForConditionalGeneration"]}, "Qwen2VLForConditionalGen"),
        ({"architectures": None, "model_type": "qwen3_vl"}, "qwen3_vl"),
        ({"architectures": None, "model_type": None}, "model_type None"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"vision_config": None}, "vision_config"),
        ({"image_token_id": None}, "image_token_id"),
    ],
)
def test_an_unsupported_base_is_named(fields: dict[str, object], named: str, mini: Path) -> None:
    edit_json(mini / "config.json", **fields)
    with pytest.raises(UnsupportedBase, match=named):
        plan_merge(resolve_source(mini))


def drop_weights(mini: Path) -> None:
    for path in [*mini.glob("model-*.safetensors"), mini / "model.safetensors.index.json"]:
        path.unlink()


def pickle_base(mini: Path) -> None:
    drop_weights(mini)
    (mini / "pytorch_model.bin").write_bytes(b"\x80\x04")


def pickle_adapter(mini: Path) -> None:
    (mini / "adapters/adapter_model.safetensors").rename(mini / "adapters/adapter_model.bin")


def as_int8(mini: Path) -> None:
    tensors = golden_base()
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)
    save_as_one_file(mini, tensors)


def as_mixed(mini: Path) -> None:
    tensors = golden_base()
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    save_as_one_file(mini, tensors)


def two_checkpoints(mini: Path) -> None:
    save_file(golden_base(), mini / "model.safetensors")


def of_another_tokenizer(mini: Path) -> None:
    edit_json(mini / "config.json", vision_start_token_id=1018)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (drop_weights, "neither model.safetensors nor model.safetensors.index.json"),
        (pickle_base, r"pickled weights \(pytorch_model.bin\)"),
        (pickle_adapter, "is pickled"),
        (as_int8, "model.norm.weight has dtype 'I8'"),
        (as_mixed, "several dtypes"),
        (two_checkpoints, r"holds both model.safetensors and shards"),
        (of_another_tokenizer, r"<\|vision_start\|> has id 1018, the tokenizer .* says 1019"),
    ],
)
def test_unusable_files_are_refused_by_name(
    damage: Callable[[Path], None], named: str, mini: Path
) -> None:
    damage(mini)
    with pytest.raises(SourceError, match=named):
        plan_merge(resolve_source(mini))


def test_a_base_of_several_dtypes_merges_into_a_named_one(mini: Path) -> None:
    as_mixed(mini)
    assert plan_merge(resolve_source(mini), dtype="float32").dtype.name == "float32"


def test_an_unknown_output_dtype_is_refused(mini: Path) -> None:
    with pytest.raises(UnsupportedBase, match="must be one of bfloat16, float16, float32"):
        plan_merge(resolve_source(mini), dtype="float8")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_adapter_value_that_is_no_number_is_named(value: float, mini: Path) -> None:
    def damage(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        state[f"{PREFIX}.lora_B.code.weight"][3, 1] = value
        return state

    edit_adapter(mini / "adapters", damage)
    with pytest.raises(NonFiniteError, match=rf"{PREFIX}.lora_B.code.weight"):
        plan_merge(resolve_source(mini))


# --- the two-way match -------------------------------------------------------------------------


def problems_of(mini: Path) -> tuple[str, ...]:
    with pytest.raises(MismatchError) as caught:
        plan_merge(resolve_source(mini))
    return caught.value.problems


def without(*names: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda state: {name: t for name, t in state.items() if name not in names}


def test_a_lonely_factor_is_a_mismatch(mini: Path) -> None:
    edit_adapter(mini / "adapters", without(f"{PREFIX}.lora_A.code.weight"))
    assert "has lora_B but no lora_A" in problems_of(mini)[0]


def test_a_module_that_the_config_adapts_needs_its_pair(mini: Path) -> None:
    edit_adapter(
        mini / "adapters",
        without(f"{PREFIX}.lora_A.code.weight", f"{PREFIX}.lora_B.code.weight"),
    )
    [problem] = problems_of(mini)
    assert problem.startswith("code: adapter_config.json says model.language_model.layers.0.mlp")


def test_a_pair_needs_its_base_tensor_of_the_right_shape(mini: Path) -> None:
    def damage(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        state[f"{PREFIX}.lora_B.code.weight"] = torch.zeros(63, 8)
        for side, shape in (("A", (8, 64)), ("B", (64, 8))):
            name = f"base_model.model.model.language_model.layers.9.self_attn.q_proj.lora_{side}"
            state[f"{name}.code.weight"] = torch.zeros(shape)
        return state

    edit_adapter(mini / "adapters", damage)
    problems = problems_of(mini)
    assert any("layers.9.self_attn.q_proj, which the base does not have" in p for p in problems)
    assert (
        "code: lora_B of model.language_model.layers.0.mlp.down_proj has shape (63, 8), expected "
        "(64, 8) (rank 8 from adapter_config.json)." in problems
    )


def test_a_convolution_with_a_pair_is_a_mismatch(mini: Path) -> None:
    edit_json(mini / "adapters/adapter_config.json", exclude_modules=None, target_modules=".*proj")
    problems = problems_of(mini)
    assert any("says model.visual.patch_embed.proj is adapted" in problem for problem in problems)


def test_every_mismatch_is_reported_and_the_first_twenty_are_shown(mini: Path) -> None:
    edit_json(mini / "adapters/adapter_config.json", r=4)
    with pytest.raises(MismatchError, match=r"(?s)\(132 problems\).*… and 112 more") as caught:
        plan_merge(resolve_source(mini))
    assert len(caught.value.problems) == 132
    assert str(caught.value).count("\n  - ") == 20


def test_a_base_tensor_missing_too_many_or_misshapen_is_a_mismatch(mini: Path) -> None:
    tensors = golden_base()
    del tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.norm.weight"] = torch.zeros(65, dtype=torch.bfloat16)
    tensors["single_vector_projector.weight"] = torch.zeros(64, 64, dtype=torch.bfloat16)
    save_as_one_file(mini, tensors)
    problems = problems_of(mini)
    assert (
        "The base lacks model.language_model.layers.1.mlp.up_proj.weight, which its config.json demands."
        in problems
    )
    assert "model.norm.weight has shape (65,), expected (64,) from config.json." in problems
    assert any("single_vector_projector.weight, which is no tensor of" in p for p in problems)


def test_a_config_of_more_layers_than_the_base_has_is_a_mismatch(mini: Path) -> None:
    config = json.loads((mini / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 4
    (mini / "config.json").write_text(json.dumps(config))
    assert len(problems_of(mini)) == 12


def test_a_projector_without_its_bias_is_a_mismatch(mini: Path) -> None:
    tensors = golden_base()
    del tensors["multi_vector_projector.bias"]
    save_as_one_file(mini, tensors)
    assert "lacks multi_vector_projector.bias" in problems_of(mini)[0]


def test_a_promised_task_without_an_adapter_is_a_mismatch(mini: Path) -> None:
    edit_adapter(mini / "adapters", lambda s: {n: t for n, t in s.items() if ".code." not in n})
    assert problems_of(mini) == ("config.json names the task 'code', which no adapter holds.",)
    assert plan_merge(resolve_source(mini), tasks=["retrieval"]).tasks == ("retrieval",)


def test_a_whole_tensor_that_modules_to_save_does_not_name_is_a_mismatch(mini: Path) -> None:
    key = "base_model.model.model.language_model.norm.modules_to_save.code.weight"
    edit_adapter(mini / "adapters", lambda state: {**state, key: torch.zeros(64)})
    assert "is saved whole" in problems_of(mini)[0]
    edit_json(mini / "adapters/adapter_config.json", modules_to_save=["norm"])
    assert all("lacks" not in problem for problem in problems_of(mini))


def test_two_adapters_in_a_directory_for_one_are_refused(mini: Path) -> None:
    shutil.copytree(mini / "adapters", mini / "adapters" / "code")
    for path in (mini / "adapters").glob("adapter_*"):
        path.unlink()
    with pytest.raises(TaskError, match="holds several tasks"):
        plan_merge(resolve_source(mini))


def test_an_empty_adapter_file_is_refused(mini: Path) -> None:
    save_file({}, mini / "adapters/adapter_model.safetensors")
    with pytest.raises(MergeToolsError, match="holds no tensor"):
        plan_merge(resolve_source(mini))
