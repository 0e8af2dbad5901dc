"""The small files beside the weights, in the forms that versions of transformers save them."""

import json
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoProcessor

from merge_tools import merge, plan_merge, resolve_source, verify, verify_forward
from tests.merge.builders import TASKS, edit_adapter, edit_json, loaded, save_peft_adapter


@pytest.fixture
def saved_by_transformers_5(mini: Path, tmp_path: Path) -> Path:
    """The golden checkpoint with its processor as transformers 5 saves it."""
    merge(plan_merge(resolve_source(mini), tasks=["code"]), tmp_path / "first")
    processor = AutoProcessor.from_pretrained(tmp_path / "first" / "code")
    (mini / "preprocessor_config.json").unlink()
    processor.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "preprocessor_config.json").exists()
    content = json.loads((tmp_path / "saved" / "processor_config.json").read_text())
    content["auto_map"] = {"AutoProcessor": "modeling_mine.MyProcessor"}
    content["processor_class"] = "MyProcessor"
    content["image_processor"]["auto_map"] = {"AutoImageProcessor": "modeling_mine.MyImages"}
    content["image_processor"]["image_processor_type"] = "MyImages"
    content["video_processor"]["auto_map"] = {"AutoVideoProcessor": "modeling_mine.MyVideos"}
    (mini / "processor_config.json").write_text(json.dumps(content))
    return mini


def test_a_processor_saved_by_transformers_5_says_how_images_are_cut(
    saved_by_transformers_5: Path, tmp_path: Path
) -> None:
    source = resolve_source(saved_by_transformers_5)
    plan = plan_merge(source, tasks=["code"], dtype="float32")
    image = plan.sidecars.image
    assert (image.patch_size, image.merge_size) == (14, 2)
    assert (image.min_pixels, image.max_pixels) == (3136, 602_112)
    assert "Qwen2.5-VL's own" not in plan.describe()
    merge(plan, tmp_path / "out")
    text = (tmp_path / "out/code/processor_config.json").read_text()
    assert "auto_map" not in text
    assert "My" not in text
    report = verify_forward(tmp_path / "out", source)
    assert report.passed, report.describe()


def test_only_bounds_that_no_file_says_are_noted_as_qwens(mini: Path) -> None:
    assert "Qwen2.5-VL's own" not in plan_merge(resolve_source(mini)).describe()
    edit_json(mini / "preprocessor_config.json", max_pixels=None, size=None)
    text = plan_merge(resolve_source(mini)).describe()
    assert "preprocessor_config.json lacks max_pixels: taken are Qwen2.5-VL's own" in text
    (mini / "preprocessor_config.json").unlink()
    assert "pixel bounds are Qwen2.5-VL's own" in plan_merge(resolve_source(mini)).describe()


def test_a_base_without_tokenizer_json_is_noted(mini: Path) -> None:
    assert "no tokenizer.json" not in plan_merge(resolve_source(mini)).describe()
    (mini / "tokenizer.json").unlink()
    text = plan_merge(resolve_source(mini)).describe()
    assert "no tokenizer.json" in text
    assert "polyvec cannot serve it" in text


def test_the_prefixes_of_an_adapter_that_is_not_jinas_are_noted(
    qwen_base: Path, mini: Path, tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj"])
    source = resolve_source(save_peft_adapter(tmp_path / "mine", qwen_base, config))
    plan = plan_merge(source)
    assert "mine: texts will be embedded with the prefixes 'Query: ' (query)" in plan.describe()
    assert "prefixes" not in plan_merge(resolve_source(mini)).describe()
    merge(plan, tmp_path / "out")
    edit_json(tmp_path / "out/mine/polyvec.json", prompts={"query": "", "passage": ""})
    assert verify(tmp_path / "out").passed
    assert not verify(tmp_path / "out", source=source).passed


def test_tasks_that_change_different_tensors_each_record_their_own(
    qwen_base: Path, tmp_path: Path
) -> None:
    adapters = {
        name: save_peft_adapter(
            tmp_path / name, qwen_base, peft.LoraConfig(r=4, target_modules=[f"{name}_proj"])
        )
        for name in ("q", "v")
    }
    source = resolve_source(qwen_base)
    merge(plan_merge(source, adapters=adapters), tmp_path / "out")
    for name in adapters:
        manifest = json.loads((tmp_path / "out" / name / "polyvec.json").read_text())
        touched = {key for key, record in manifest["tensors"].items() if record["touched"]}
        assert touched
        assert all(f"{name}_proj" in key for key in touched)
        assert len(touched) == manifest["merge"]["num_touched"]
        based = {key for key, r in manifest["tensors"].items() if r["source_xxh3_128"]}
        assert based == touched
    assert verify(tmp_path / "out").passed
    assert verify(tmp_path / "out", source=source, adapters=adapters).passed


def test_an_adapters_saved_lm_head_is_left_out_of_a_tied_base_and_said_so(
    mini: Path, tmp_path: Path
) -> None:
    merge(plan_merge(resolve_source(mini)), tmp_path / "before")
    edit_json(mini / "adapters/adapter_config.json", modules_to_save=["lm_head"])
    head = torch.ones(3, 64)
    edit_adapter(
        mini / "adapters",
        lambda s: (
            s
            | {f"base_model.model.lm_head.modules_to_save.{t}.weight": head.clone() for t in TASKS}
        ),
    )
    plan = plan_merge(resolve_source(mini))
    assert "code: the adapter's saved lm_head.weight is not used for embeddings" in plan.describe()
    merge(plan, tmp_path / "out")
    for task in TASKS:
        got, expected = loaded(tmp_path / "out" / task), loaded(tmp_path / "before" / task)
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], expected[name]) for name in got)
