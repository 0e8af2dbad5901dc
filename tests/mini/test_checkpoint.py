"""The committed checkpoint: its files, its size, and that it is what training code reads and writes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import merge_tools
from benchmarks.synthetic_config import SPECIAL_TOKENS
from mini.documents import vocabulary
from mini.model import shapes
from mini.model.checkpoint import TASKS, read_checkpoint, write_checkpoint
from mini.model.tokenizer import learn_tokenizer
from mini.training.sequences import Encoder
from tests.mini.paths import CHECKPOINT
from tests.paths import GOLDEN_CHECKPOINT


def test_the_checkpoint_has_the_files_of_the_original_and_stays_small() -> None:
    files = {str(file.relative_to(CHECKPOINT)) for file in CHECKPOINT.rglob("*") if file.is_file()}
    golden = {
        str(file.relative_to(GOLDEN_CHECKPOINT))
        for file in GOLDEN_CHECKPOINT.rglob("*")
        if file.is_file() and "golden" not in file.relative_to(GOLDEN_CHECKPOINT).parts
    }
    assert files == golden
    assert sum((CHECKPOINT / file).stat().st_size for file in files) <= 12_000_000


def test_its_config_has_the_fields_of_the_original() -> None:
    ours, golden = (
        json.loads((directory / "config.json").read_text())
        for directory in (CHECKPOINT, GOLDEN_CHECKPOINT)
    )
    assert set(ours) == set(golden)
    assert set(ours["text_config"]) >= set(golden["text_config"]) - {"image_token_id"}
    assert set(ours["vision_config"]) == set(golden["vision_config"])


def test_reading_and_writing_are_inverses(tmp_path: Path) -> None:
    base, adapted = read_checkpoint(CHECKPOINT)
    said = json.loads((CHECKPOINT / "adapters" / "adapter_config.json").read_text())
    write_checkpoint(base, adapted, said, CHECKPOINT, tmp_path / "again")
    compared = 0
    for file in sorted(CHECKPOINT.rglob("*.safetensors")):
        ours, again = load_file(file), load_file(tmp_path / "again" / file.relative_to(CHECKPOINT))
        assert set(ours) == set(again)
        for name, tensor in ours.items():
            assert tensor.dtype == torch.bfloat16
            assert torch.equal(tensor, again[name]), name
            compared += 1
    assert compared > 150
    for name in ("config.json", "preprocessor_config.json", "model.safetensors.index.json"):
        assert (tmp_path / "again" / name).read_text() == (CHECKPOINT / name).read_text()


@pytest.mark.parametrize("task", TASKS)
def test_every_adapter_has_learned_something(task: str) -> None:
    with safe_open(CHECKPOINT / "adapters" / "adapter_model.safetensors", framework="pt") as file:
        grown = [name for name in file.keys() if f"lora_B.{task}." in name]  # noqa: SIM118
        assert len(grown) == 7 * shapes.TEXT["num_hidden_layers"] + 1
        assert all(file.get_tensor(name).abs().max() > 0 for name in grown)


def test_merging_it_needs_no_exception(tmp_path: Path) -> None:
    plan = merge_tools.plan_merge(merge_tools.resolve_source(str(CHECKPOINT)))
    merge_tools.merge(plan, tmp_path / "merged")
    report = merge_tools.verify(
        tmp_path / "merged", source=merge_tools.resolve_source(str(CHECKPOINT))
    )
    assert report.passed


def test_the_stored_tokenizer_has_a_token_for_almost_every_word() -> None:
    encoder = Encoder.load(CHECKPOINT)
    assert encoder.tokenizer.get_vocab_size() == shapes.VOCABULARY
    split = [word for word in vocabulary.READABLE if len(encoder.ids(f" {word}")) > 1]
    assert len(split) <= 3, split
    for text in ("Invoice from Jasper, total 311.", "日本 \t ß", "def f(x):\n    return x"):
        assert encoder.tokenizer.decode(encoder.ids(text)) == text


def test_a_tokenizer_can_be_learned_again_and_has_the_same_special_tokens() -> None:
    learned = learn_tokenizer()
    assert learned.get_vocab_size() == shapes.VOCABULARY
    for token in SPECIAL_TOKENS:
        assert learned.token_to_id(token) == shapes.token_id(token)
        assert Encoder.load(CHECKPOINT).ids(token) == [shapes.token_id(token)]
