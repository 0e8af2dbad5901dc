import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from benchmarks import synthetic
from benchmarks.synthetic import SHAPES, build
from benchmarks.synthetic_config import SPECIAL_TOKENS, write_config, write_tokenizer
from benchmarks.synthetic_plan import (
    plan_adapters,
    plan_projector,
    plan_text,
    plan_vision,
    split,
)
from tests.paths import GOLDEN_CHECKPOINT, GOLDEN_OUTPUTS

INPUTS = json.loads((GOLDEN_OUTPUTS / "inputs.json").read_text())
Tensors = dict[str, torch.Tensor]


def read(directory: Path) -> tuple[Tensors, Tensors]:
    base: Tensors = {}
    for path in sorted(directory.glob("model-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            base |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    with safe_open(directory / "adapters" / "adapter_model.safetensors", framework="pt") as file:
        adapters = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return base, adapters


def outline(tensors: Tensors) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


@pytest.fixture(scope="module", params=["mini", "small"])
def shape_name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(shape_name, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp(shape_name) / "checkpoint"
    build(out, SHAPES[shape_name])
    return out


@pytest.fixture(scope="module")
def mini(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("mini") / "checkpoint"
    build(out, SHAPES["mini"])
    return out


def test_the_full_plan_counts_the_published_parameters():
    full = SHAPES["full"]
    base = [*plan_vision(full), *plan_text(full)]
    adapters = list(plan_adapters(full))
    assert sum(planned.num_values for planned in base) == 3_754_622_976
    assert sum(planned.num_values for planned in plan_projector(full)) == 262_272
    assert sum(planned.num_values for planned in adapters) == 3 * 59_936_768
    assert len(adapters) == 1518
    names = [planned.name for planned in [*base, *adapters]]
    assert len(set(names)) == len(names)


def test_the_full_config_holds_the_published_numbers(tmp_path):
    write_config(tmp_path, SHAPES["full"], "bfloat16")
    config = json.loads((tmp_path / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    assert config["architectures"] == ["JinaEmbeddingsV4Model"]
    assert (text["hidden_size"], text["num_hidden_layers"], text["vocab_size"]) == (
        2048,
        36,
        151936,
    )
    assert (text["num_attention_heads"], text["num_key_value_heads"]) == (16, 2)
    assert text["rope_scaling"]["mrope_section"] == [16, 24, 24]
    assert (vision["depth"], vision["hidden_size"], vision["intermediate_size"]) == (32, 1280, 3420)
    assert vision["fullatt_block_indexes"] == [7, 15, 23, 31]
    assert vision["out_hidden_size"] == 2048
    assert (config["vision_start_token_id"], config["vision_end_token_id"]) == (151652, 151653)
    assert (config["image_token_id"], config["video_token_id"]) == (151655, 151656)
    assert (config["bos_token_id"], config["eos_token_id"]) == (151643, 151645)
    assert config["matryoshka_dims"] == [128, 256, 512, 1024, 2048]
    assert config["multi_vector_projector_dim"] == 128


def test_the_full_tokenizer_has_the_published_ids_and_the_golden_merges(tmp_path):
    write_tokenizer(tmp_path, SHAPES["full"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == 151_657
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(151_643, 151_657))
    assert tokenizer.convert_tokens_to_ids("<|vision_start|>") == 151_652
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") == 151_655
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (151_643, 151_645)
    assert tokenizer("<|im_start|>user<|vision_end|>")["input_ids"][0] == 151_644
    golden = Tokenizer.from_file(str(GOLDEN_CHECKPOINT / "tokenizer.json"))
    for text in INPUTS["texts"]:
        ids = tokenizer(text)["input_ids"]
        assert ids == golden.encode(text).ids
        assert tokenizer.decode(ids) == text


def test_no_text_gives_a_filler_token(tmp_path):
    write_tokenizer(tmp_path, SHAPES["full"])
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.id_to_token(100_000) == "<filler_100000>"
    assert max(tokenizer.encode("<filler_100000>").ids) < 1010


def test_text_returns_from_the_tokenizer_unchanged(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    for text in INPUTS["texts"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "added_tokens.json",
        "special_tokens_map.json",
        "vocab.json",
        "preprocessor_config.json",
        "adapters/adapter_config.json",
    ],
)
def test_mini_has_the_golden_checkpoints_json(mini, name):
    assert json.loads((mini / name).read_text()) == json.loads(
        (GOLDEN_CHECKPOINT / name).read_text()
    )


def test_mini_has_the_golden_checkpoints_files_and_tensors(mini):
    files = {str(path.relative_to(mini)) for path in mini.rglob("*")}
    golden_files = {
        str(path.relative_to(GOLDEN_CHECKPOINT))
        for path in GOLDEN_CHECKPOINT.rglob("*")
        if GOLDEN_OUTPUTS not in (path, path.parent)
    }
    assert files == golden_files
    for tensors, golden in zip(read(mini), read(GOLDEN_CHECKPOINT), strict=True):
        assert len(tensors) > 80
        assert outline(tensors) == outline(golden)


def test_the_index_names_every_tensor_in_its_shard_and_counts_the_bytes(checkpoint):
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
    base, _ = read(checkpoint)
    assert set(index["weight_map"]) == set(base)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in base.values())
    shards = sorted(set(index["weight_map"].values()))
    assert shards == [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for shard in shards:
        with safe_open(checkpoint / shard, framework="pt") as file:
            assert file.metadata() == {"format": "pt"}
            in_index = {name for name, place in index["weight_map"].items() if place == shard}
            assert set(file.keys()) == in_index


def test_there_is_an_adapter_pair_for_every_target_layer_and_task(checkpoint, shape_name):
    _, adapters = read(checkpoint)
    assert len(adapters) == 3 * 7 * SHAPES[shape_name].layers * 2 + 6


def test_weights_are_spread_as_documented_and_no_two_are_alike(checkpoint):
    base, adapters = read(checkpoint)
    tensors = base | adapters
    heads = set()
    for name, tensor in tensors.items():
        values = tensor.float()
        assert values.isfinite().all(), name
        assert values.std() > 0.01, name
        is_norm = "norm" in name or "ln_q" in name
        assert values.mean() == pytest.approx(1.0 if is_norm else 0.0, abs=0.15), name
        if name.endswith("_proj.weight") and name in base:
            assert values.std() == pytest.approx(0.8 / values.shape[1] ** 0.5, rel=0.05), name
        heads.add(tuple(values.flatten()[:16].tolist()))
        if values.ndim == 2:
            assert values.unique(dim=0).shape == values.shape, name
    assert len(heads) == len(tensors) > 200


def load(checkpoint: Path) -> tuple[Qwen2_5_VLForConditionalGeneration, dict[str, int]]:
    raw = json.loads((checkpoint / "config.json").read_text())
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {name: raw[name] for name in names}
    config = Qwen2_5_VLConfig(
        text_config=raw["text_config"],
        vision_config=raw["vision_config"],
        tie_word_embeddings=raw["tie_word_embeddings"],
        **ids,
    )
    model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        checkpoint, config=config, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    assert report["unexpected_keys"] == {
        "multi_vector_projector.weight",
        "multi_vector_projector.bias",
    }
    return model, ids


def assert_healthy(hidden: torch.Tensor) -> None:
    assert hidden.isfinite().all()
    assert 0.5 < float(hidden.float().square().mean().sqrt()) < 2


def test_transformers_loads_it_and_its_hidden_states_are_healthy(checkpoint):
    model, ids = load(checkpoint)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    text = torch.tensor([tokenizer.encode("Query: " + INPUTS["texts"][0]).ids])
    prompt = "<|im_start|>user\n<|vision_start|>{}<|vision_end|>Describe the image.<|im_end|>\n"
    image = torch.tensor([tokenizer.encode(prompt.format("<|image_pad|>" * 64)).ids])
    pixels = torch.randn(256, 1176, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert_healthy(model.model(input_ids=text).last_hidden_state)
        assert_healthy(
            model.model(
                input_ids=image,
                pixel_values=pixels.bfloat16(),
                image_grid_thw=torch.tensor([[1, 16, 16]]),
                mm_token_type_ids=(image == ids["image_token_id"]).int(),
            ).last_hidden_state
        )


def test_equal_seeds_give_equal_bytes_and_other_seeds_other_weights(mini, tmp_path):
    build(tmp_path / "same", SHAPES["mini"])
    build(tmp_path / "other", SHAPES["mini"], seed=1)
    for path in sorted(path for path in mini.rglob("*") if path.is_file()):
        assert (tmp_path / "same" / path.relative_to(mini)).read_bytes() == path.read_bytes()
    base, _ = read(mini)
    other, _ = read(tmp_path / "other")
    assert len(base) > 80
    assert not any(torch.equal(tensor, other[name]) for name, tensor in base.items())


@pytest.mark.parametrize("dtype_name", ["float16", "float32"])
def test_other_dtypes_hold_the_same_weights(mini, tmp_path, dtype_name):
    built = build(tmp_path / "out", SHAPES["mini"], dtype_name=dtype_name)
    for tensors, expected in zip(read(tmp_path / "out"), read(mini), strict=True):
        assert set(tensors) == set(expected)
        for name, tensor in tensors.items():
            assert tensor.dtype == getattr(torch, dtype_name)
            assert torch.allclose(tensor.float(), expected[name].float(), rtol=2**-8, atol=1e-6)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["torch_dtype"] == config["text_config"]["torch_dtype"] == dtype_name
    assert built.weight_bytes == built.num_base_parameters * getattr(torch, dtype_name).itemsize


@pytest.mark.parametrize("num_shards", [1, 3, 7])
def test_shards_share_the_bytes_and_keep_the_order(num_shards):
    plan = [*plan_vision(SHAPES["full"]), *plan_text(SHAPES["full"])]
    shards = split(plan, num_shards)
    assert [planned for shard in shards for planned in shard] == plan
    largest_tensor = max(planned.num_values for planned in plan)
    even = sum(planned.num_values for planned in plan) / num_shards
    assert len(shards) == num_shards
    for shard in shards:
        assert abs(sum(planned.num_values for planned in shard) - even) <= largest_tensor


def test_every_tensor_may_have_a_shard_of_its_own():
    plan = list(plan_vision(SHAPES["mini"]))
    assert split(plan, len(plan)) == [[planned] for planned in plan]


def test_an_existing_directory_is_refused_and_left_alone(tmp_path):
    with pytest.raises(FileExistsError, match="which exists"):
        build(tmp_path, SHAPES["mini"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_shards", [0, 95])
def test_a_failure_leaves_nothing_behind(tmp_path, num_shards):
    with pytest.raises(ValueError, match=rf"has 1\.\.94 shards, got {num_shards}"):
        build(tmp_path / "out", SHAPES["mini"], num_shards=num_shards)
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_in_one_line_of_json(tmp_path, monkeypatch, capsys):
    out = tmp_path / "deep" / "out"
    monkeypatch.setattr(sys, "argv", ["synthetic", str(out), "--shape", "mini", "--shards", "3"])
    synthetic.main()
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["num_base_parameters"] == 496_864
    assert summary["adapter_bytes"] == 165_888
    assert len(list(out.glob("model-*-of-00003.safetensors"))) == 3
