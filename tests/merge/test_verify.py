"""Verification finds every kind of damage, and nothing where there is none."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_tools import (
    NotACheckpoint,
    Source,
    SourceError,
    merge,
    plan_merge,
    resolve_source,
    verify,
    verify_forward,
)
from tests.merge.builders import TASKS, edit_adapter, edit_json, save_peft_adapter
from tests.paths import GOLDEN_CHECKPOINT


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("verify") / "out"
    merge(plan_merge(golden()), out)
    return out


@pytest.fixture
def out(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage; hard links become copies."""
    return shutil.copytree(pristine, tmp_path / "out")


def golden() -> Source:
    return resolve_source(GOLDEN_CHECKPOINT)


def problems(out: Path, source: Source | None = None) -> list[str]:
    report = verify(out, source=source)
    found = [problem for each in report.checkpoints for problem in each.problems]
    assert report.passed == (not found)
    return found


def test_an_untouched_merge_passes_alone_and_against_its_source(pristine: Path) -> None:
    assert problems(pristine) == []
    assert problems(pristine, golden()) == []
    assert problems(pristine / "code") == []
    assert problems(pristine / "code", golden()) == []
    text = verify(pristine, source=golden()).describe()
    assert text.count("ok ") == 3
    assert "computed again from the source" in text


def test_merges_in_other_dtypes_and_of_some_tasks_pass(tmp_path: Path) -> None:
    merge(plan_merge(golden(), tasks=["code"], dtype="float32"), tmp_path / "out")
    merge(plan_merge(golden(), tasks=["retrieval"], dtype="float16"), tmp_path / "out")
    assert problems(tmp_path / "out", golden()) == []


@pytest.mark.parametrize("against_source", [False, True])
def test_any_flipped_bit_of_any_file_is_found(out: Path, against_source: bool) -> None:
    chance = random.Random(0)
    files = sorted(path for path in (out / "code").iterdir() if path.name != "polyvec.json")
    source = golden() if against_source else None
    seen = 0
    for path in files:
        data = path.read_bytes()
        for _ in range(6 if path.suffix == ".safetensors" else 1):
            damaged = bytearray(data)
            damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            assert problems(out / "code", source), path.name
            seen += 1
        path.write_bytes(data)
    assert seen == 9 + 18
    assert problems(out / "code", source) == []


def test_a_flipped_bit_names_its_tensor(out: Path) -> None:
    path = out / "code" / "model-00001-of-00002.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert problems(out)[0].startswith("The tensor model.")
    assert "damaged since the merge" in problems(out)[0]
    assert "differs from what the source gives" in problems(out, golden())[0]
    assert len(problems(out / "retrieval")) == 0


def truncate(path: Path) -> None:
    weights = path / "model-00002-of-00002.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def remove_file(path: Path) -> None:
    (path / "tokenizer.json").unlink()


def remove_shard(path: Path) -> None:
    (path / "model-00001-of-00002.safetensors").unlink()


def add_file(path: Path) -> None:
    (path / "pytorch_model.bin").write_bytes(b"")


def _resave(path: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    manifest = json.loads((path.parent / "polyvec.json").read_text())
    manifest["files"][path.name]["bytes"] = path.stat().st_size
    (path.parent / "polyvec.json").write_text(json.dumps(manifest))


def remove_tensor(path: Path) -> None:
    _resave(path / "model-00002-of-00002.safetensors", lambda state: state.pop("model.norm.weight"))


def add_tensor(path: Path) -> None:
    def add(state: dict[str, torch.Tensor]) -> None:
        state["extra.weight"] = torch.zeros(3)

    _resave(path / "model-00002-of-00002.safetensors", add)


def reshape_tensor(path: Path) -> None:
    def reshape(state: dict[str, torch.Tensor]) -> None:
        state["model.norm.weight"] = state["model.norm.weight"].view(8, 8)

    _resave(path / "model-00002-of-00002.safetensors", reshape)


def edit_config(path: Path) -> None:
    edit_json(path / "config.json", rms_norm_eps=1e-5)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (truncate, "model-00002-of-00002.safetensors has"),
        (remove_file, "tokenizer.json is missing"),
        (remove_shard, "model-00001-of-00002.safetensors is missing"),
        (add_file, "pytorch_model.bin is extra"),
        (remove_tensor, "The tensor model.norm.weight is missing from"),
        (add_tensor, "The tensor extra.weight in"),
        (reshape_tensor, "is bfloat16 (8, 8), expected bfloat16 (64,)"),
        (edit_config, "config.json"),
    ],
)
@pytest.mark.parametrize("against_source", [False, True])
def test_damage_is_named(
    damage: Callable[[Path], None], named: str, against_source: bool, out: Path
) -> None:
    damage(out / "code")
    found = problems(out, golden() if against_source else None)
    assert any(named in problem for problem in found), found
    assert "FAILED  code" in verify(out).describe()


def test_a_checkpoint_of_another_adapter_fails_against_this_source(
    mini: Path, tmp_path: Path
) -> None:
    def shift(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        key = "base_model.model.model.language_model.layers.0.mlp.down_proj.lora_B.code.weight"
        return state | {key: state[key] + 0.25}

    edit_adapter(mini / "adapters", shift)
    merge(plan_merge(resolve_source(mini)), tmp_path / "out")
    assert problems(tmp_path / "out") == []
    found = problems(tmp_path / "out", golden())
    assert found[0].startswith("The tensor model.layers.0.mlp.down_proj.weight differs")
    assert all("model.layers.0.mlp.down_proj.weight" in problem for problem in found)


def test_a_manifest_that_lies_about_its_source_is_found(out: Path) -> None:
    edit_json(out / "code" / "polyvec.json", max_text_tokens=8)
    assert problems(out / "code", golden()) == [
        "polyvec.json says max_text_tokens 8, the source gives 32768."
    ]


def test_an_unfinished_directory_beside_finished_ones_is_named(out: Path) -> None:
    (out / "code" / "polyvec.json").unlink()
    report = verify(out)
    assert not report.passed
    [failed] = [each for each in report.checkpoints if each.problems]
    assert failed.task == "code"
    assert "not a merged checkpoint" in failed.problems[0]


@pytest.mark.parametrize("name", ["nowhere", "empty", "unmerged"])
def test_what_is_no_checkpoint_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(GOLDEN_CHECKPOINT, tmp_path / "unmerged")
    with pytest.raises(NotACheckpoint):
        verify(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"manifest_version": 2}', '{"manifest_version": 1}']
)
def test_a_broken_manifest_is_refused(text: str, out: Path) -> None:
    (out / "code/polyvec.json").write_text(text)
    with pytest.raises(NotACheckpoint):
        verify(out / "code")


def test_a_task_that_the_source_does_not_have_is_a_problem_of_its_own(
    mini: Path, out: Path
) -> None:
    edit_adapter(mini / "adapters", lambda s: {n: t for n, t in s.items() if ".code." not in n})
    report = verify(out, source=resolve_source(mini))
    [failed] = [each for each in report.checkpoints if each.problems]
    assert failed.task == "code"
    assert failed.problems == (
        "The source has no task 'code' (it has retrieval, text-matching), so this checkpoint was "
        "not compared. Verify it against its own source.",
    )
    flip_last_bit(out / "retrieval" / "model-00001-of-00002.safetensors")
    report = verify(out, source=resolve_source(mini))
    assert {each.task for each in report.checkpoints if each.problems} == {"code", "retrieval"}


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damaged", ["code", "code2"])
def test_each_of_two_checkpoints_of_one_task_is_compared_with_the_source(
    damaged: str, out: Path
) -> None:
    shutil.copytree(out / "code", out / "code2")
    assert problems(out, golden()) == []
    flip_last_bit(out / damaged / "model-00001-of-00002.safetensors")
    report = verify(out, source=golden())
    [failed] = [each for each in report.checkpoints if each.problems]
    assert failed.path == out / damaged


def test_an_adapter_without_a_task_is_compared_with_what_was_made_of_it(
    qwen_base: Path, pristine: Path, tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj"])
    source = resolve_source(save_peft_adapter(tmp_path / "mine", qwen_base, config))
    merge(plan_merge(source, tasks=["law"]), tmp_path / "out")
    shutil.copytree(pristine / "code", tmp_path / "out" / "code")
    report = verify(tmp_path / "out", source=source)
    [failed] = [each for each in report.checkpoints if each.problems]
    assert failed.task == "code"
    assert failed.problems[0].startswith("The source has no task 'code' (it has law)")


@pytest.mark.parametrize("given", [{"base": "somewhere"}, {"adapters": {"code": Path("lora")}}])
def test_an_adapter_or_a_base_without_a_source_is_refused(
    given: dict[str, object], pristine: Path
) -> None:
    with pytest.raises(SourceError, match=r"without the source they belong to.*--source"):
        verify(pristine, **given)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merge_computes_what_base_and_unmerged_adapter_compute(
    dtype: str, tmp_path: Path
) -> None:
    merge(plan_merge(golden(), dtype=dtype), tmp_path / "out")
    report = verify_forward(tmp_path / "out", golden())
    assert report.passed, report.describe()
    assert [task.task for task in report.tasks] == sorted(TASKS)
    assert {probe.probe.split()[0] for probe in report.tasks[0].probes} == {"text", "image"}


def test_a_merge_of_a_vision_adapter_computes_what_peft_computes(
    qwen_base: Path, tmp_path: Path
) -> None:
    config = peft.LoraConfig(
        r=4,
        lora_alpha=5,
        use_rslora=True,
        target_modules=["qkv", "q_proj"],
        modules_to_save=["norm"],
    )
    source = resolve_source(save_peft_adapter(tmp_path / "mine", qwen_base, config))
    merge(plan_merge(source, dtype="float32"), tmp_path / "out")
    assert verify(tmp_path / "out", source=source).passed
    report = verify_forward(tmp_path / "out", source)
    assert report.passed, report.describe()


def test_a_merge_with_a_wrong_scale_computes_something_else(mini: Path, tmp_path: Path) -> None:
    edit_json(mini / "adapters" / "adapter_config.json", lora_alpha=24)
    merge(plan_merge(resolve_source(mini), tasks=["code"], dtype="float32"), tmp_path / "out")
    report = verify_forward(tmp_path / "out", golden())
    assert not report.passed
    assert "FAILED" in report.describe()
