import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from benchmarks.adapter import RANK, write_adapter
from benchmarks.checkpoint import (
    dtype_name,
    item_tokens,
    load_projector,
    page_grid,
    weight_bytes,
)
from benchmarks.contenders import CONTENDERS
from benchmarks.contenders_vllm import lora_bytes_on_cpu
from benchmarks.synthetic import SHAPES
from benchmarks.synthetic_config import write_config
from benchmarks.turns import Turn, Turns, UnavailableError, read_turns, write_turns
from benchmarks.workloads import PAGE_SIZE, TEMPLATE_TOKENS, WORKLOADS
from serving.images import patch_grid
from serving.manifest import read_manifest


@pytest.fixture(scope="module")
def checkpoint(merged_float32: Path) -> Path:
    return merged_float32 / "retrieval"


def hidden_states(model: Qwen2_5_VLForConditionalGeneration) -> torch.Tensor:
    with torch.inference_mode():
        states: torch.Tensor = model.model(input_ids=torch.arange(1, 17)[None]).last_hidden_state
        return states[0]


def test_peft_loads_the_adapter_and_every_vector_changes(checkpoint: Path, tmp_path: Path) -> None:
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    before = hidden_states(model)
    write_adapter(checkpoint, tmp_path)
    with warnings.catch_warnings():
        # PEFT only warns about keys that match nothing.
        warnings.simplefilter("error")
        adapted = PeftModel.from_pretrained(model, str(tmp_path))
    written = load_file(tmp_path / "adapter_model.safetensors")
    loaded = {
        name.replace(".default", ""): tensor
        for name, tensor in adapted.state_dict().items()
        if "lora_" in name
    }
    assert len(written) == 2 * 7 * 3
    assert loaded.keys() == written.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in written.items())
    cosines = torch.nn.functional.cosine_similarity(before, hidden_states(model), dim=-1)
    assert cosines.max() < 0.95


def test_an_adapter_is_the_same_for_a_seed_and_has_no_zeros(
    checkpoint: Path, tmp_path: Path
) -> None:
    drawn = []
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        (tmp_path / name).mkdir()
        write_adapter(checkpoint, tmp_path / name, seed)
        drawn.append(load_file(tmp_path / name / "adapter_model.safetensors"))
    first, again, other = drawn
    assert first.keys() == again.keys() == other.keys()
    for name, tensor in first.items():
        assert RANK in tensor.shape
        assert tensor.abs().mean() > 0.01
        assert torch.equal(tensor, again[name])
        assert not torch.equal(tensor, other[name])


def test_a_model_without_layers_takes_no_adapter(tmp_path: Path) -> None:
    write_config(tmp_path, SHAPES["null"], "bfloat16")
    with pytest.raises(UnavailableError, match="no layers"):
        write_adapter(tmp_path, tmp_path)


def test_peers_compute_in_the_type_of_the_weights(checkpoint: Path) -> None:
    assert dtype_name(checkpoint) == "float32"
    stored = sum(
        tensor.nbytes
        for path in checkpoint.glob("model-*.safetensors")
        for tensor in load_file(path).values()
    )
    assert weight_bytes(checkpoint) == stored
    weight, bias = load_projector(checkpoint)
    assert weight.shape == (len(bias), 64)


def test_lora_on_a_cpu_needs_memory_for_each_token_of_a_step(tmp_path: Path) -> None:
    write_config(tmp_path, SHAPES["full"], "bfloat16")
    # 11,008 wide, rank 32, two bytes and four.
    assert lora_bytes_on_cpu(tmp_path, 1) == 32 * 11008 * 6
    assert lora_bytes_on_cpu(tmp_path, 8192) == pytest.approx(17.3e9, rel=0.01)
    write_config(tmp_path, SHAPES["full"], "float32")
    assert lora_bytes_on_cpu(tmp_path, 1) == 32 * 11008 * 4


def test_turns_are_read_as_they_were_written(tmp_path: Path) -> None:
    turns: Turns = {"text-8": [Turn(1.5, 2.5, 0.5), Turn(1.25, 2.0, 0.25)], "page": []}
    write_turns(tmp_path / "turns.json", lambda: turns)
    assert read_turns(tmp_path / "turns.json") == turns


def test_a_contender_that_is_not_available_says_why(tmp_path: Path) -> None:
    def run() -> Turns:
        raise UnavailableError("no such kernel.")

    write_turns(tmp_path / "turns.json", run)
    with pytest.raises(UnavailableError, match=r"^no such kernel\.$"):
        read_turns(tmp_path / "turns.json")


def test_every_contender_stands_in_the_readme() -> None:
    readme = Path("benchmarks/README.md").read_text(encoding="utf-8")
    assert CONTENDERS
    assert all(f"| `{name}` |" in readme for name in CONTENDERS)


def test_a_page_has_as_many_tokens_as_polyvec_gives_it(checkpoint: Path) -> None:
    image = read_manifest(checkpoint).image
    grid = patch_grid(*PAGE_SIZE, image.max_pixels, image)
    assert page_grid(checkpoint) == (grid.rows, grid.columns)
    assert item_tokens(checkpoint, WORKLOADS["page"]) == grid.num_tokens + TEMPLATE_TOKENS
    assert item_tokens(checkpoint, WORKLOADS["text-64"]) == 64


def test_a_page_of_the_real_size_has_744_image_tokens(tmp_path: Path) -> None:
    settings = {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 602112}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    assert item_tokens(tmp_path, WORKLOADS["page"]) == WORKLOADS["page"].num_tokens == 755
