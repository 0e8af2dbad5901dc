"""What a merge leaves on disk: files, modes, links, config, manifest."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, AutoTokenizer

from merge_tools import (
    NonFiniteError,
    NotEnoughSpace,
    OutputError,
    OutputExists,
    merge,
    plan_merge,
    resolve_source,
)
from merge_tools.dtypes import BFLOAT16
from merge_tools.layout import PAGE_BYTES, PlacedTensor, TensorShape, lay_out
from merge_tools.plan import MergePlan
from serving.manifest import read_manifest as read_as_serving_does
from tests.merge.builders import TASKS, edit_json, files_under, golden_base, save_as_one_file
from tests.paths import GOLDEN_CHECKPOINT


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("output") / "deep" / "out"
    merge(plan(), path)
    return path


def plan(source: Path = GOLDEN_CHECKPOINT, **options: object) -> MergePlan:
    return plan_merge(resolve_source(source), **options)


def test_nothing_but_the_tasks_is_left(out: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == sorted(TASKS)


def test_the_manifest_names_every_file_and_every_tensor(out: Path) -> None:
    seen = 0
    for task in TASKS:
        manifest = json.loads((out / task / "polyvec.json").read_text())
        present = {path.name: path.stat().st_size for path in (out / task).iterdir()}
        del present["polyvec.json"]
        assert {name: f["bytes"] for name, f in manifest["files"].items()} == present
        for name, record in manifest["tensors"].items():
            tensors = load_file(out / task / record["file"])
            tensor = tensors[name.removeprefix("multi_vector_projector.")]
            assert list(tensor.shape) == record["shape"]
            assert (record["source_xxh3_128"] is not None) == record["touched"]
            seen += 1
    assert seen == 3 * 94


def test_serving_reads_the_manifest(out: Path) -> None:
    for task in TASKS:
        manifest = read_as_serving_does(out / task)
        assert (manifest.task, manifest.model) == (task, "jina-embeddings-v4")
        assert (manifest.hidden_size, manifest.multi_vector_dim) == (64, 32)
        assert manifest.matryoshka_dims == (8, 16, 32, 64)
        assert manifest.special_token_ids.image_pad == 1022
        assert (manifest.image.min_pixels, manifest.image.max_pixels) == (3136, 602112)
        adapter = manifest.merge.adapter
        assert (adapter.rank, adapter.alpha, adapter.scale) == (8, 16, 2)
        assert manifest.prompts["passage"] == (
            "Query: " if task == "text-matching" else "Passage: "
        )


def test_no_path_of_this_machine_is_in_the_output(out: Path) -> None:
    for name, data in files_under(out).items():
        if name.endswith(".json"):
            assert str(Path.home()).encode() not in data or Path.home() == Path("/")
            assert str(GOLDEN_CHECKPOINT.parent).encode() not in data, name


def test_untouched_tensors_stand_once_and_are_linked(out: Path) -> None:
    shared = [out / task / "model-00002-of-00002.safetensors" for task in TASKS]
    assert len({path.stat().st_ino for path in shared}) == 1
    own = [out / task / "model-00001-of-00002.safetensors" for task in TASKS]
    assert len({path.stat().st_ino for path in own}) == 3
    assert "model.embed_tokens.weight" in load_file(shared[0])
    assert "model.layers.0.self_attn.q_proj.weight" in load_file(own[0])


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        merge(plan(), tmp_path / "out")
    finally:
        os.umask(before)
    modes = {
        stat.S_IMODE(path.stat().st_mode): path.is_dir() for path in (tmp_path / "out").rglob("*")
    }
    assert modes == {0o750: True, 0o640: False}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_config_is_an_ordinary_qwen_config_of_the_outputs_dtype(
    dtype: str, mini: Path, tmp_path: Path
) -> None:
    edit_json(mini / "config.json", _attn_implementation="flash_attention_2")
    merge(plan(mini, dtype=dtype), tmp_path / "out")
    config = json.loads((tmp_path / "out/code/config.json").read_text())
    assert config["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    assert config["model_type"] == "qwen2_5_vl"
    assert [config["torch_dtype"], config["text_config"]["torch_dtype"],
            config["vision_config"]["torch_dtype"]] == [dtype] * 3  # fmt: skip
    assert config["tie_word_embeddings"] is True
    for name in ("auto_map", "_attn_implementation", "task_names", "matryoshka_dims"):
        assert name not in config
    original = json.loads((mini / "config.json").read_text())
    assert config["text_config"] == original["text_config"] | {"torch_dtype": dtype}
    assert config["vision_config"] == original["vision_config"] | {"torch_dtype": dtype}


def test_stock_processor_and_tokenizer_load_without_custom_code(out: Path) -> None:
    processor = AutoProcessor.from_pretrained(out / "code")
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    assert (
        AutoTokenizer.from_pretrained(out / "code").convert_tokens_to_ids("<|image_pad|>") == 1022
    )


def test_headers_are_whole_pages_and_tensors_leave_no_gap() -> None:
    shapes = [TensorShape("odd", (3,)), TensorShape("even", (2048, 2)), TensorShape("none", ())]
    [file] = lay_out(shapes, [], BFLOAT16)
    assert len(file.header) % PAGE_BYTES == 0
    assert [tensor.name for tensor in file.tensors] == ["even", "odd", "none"]
    position = len(file.header)
    for tensor in file.tensors:
        assert tensor.offset == position
        position += tensor.num_bytes
    assert position == file.num_bytes


def test_shards_stay_under_five_gigabytes() -> None:
    shapes = [TensorShape(str(number), (1_000_000_000,)) for number in range(7)]
    files = lay_out(shapes[:5], shapes[5:], BFLOAT16)
    assert [len(file.tensors) for file in files] == [2, 2, 1, 2]
    assert [file.is_shared for file in files] == [False, False, False, True]
    assert next(file.name for file in files) == "model-00001-of-00004.safetensors"


def test_a_finished_checkpoint_is_not_replaced_unless_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge(plan(tasks=["code"]), out)
    before = files_under(out)
    with pytest.raises(OutputExists, match=r"already holds a finished checkpoint.*overwrite"):
        merge(plan(), out)
    assert files_under(out) == before
    merge(plan(dtype="float32"), out, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == sorted(TASKS)
    assert json.loads((out / "code/polyvec.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_directory_is_never_replaced(overwrite: bool, tmp_path: Path) -> None:
    foreign = tmp_path / "out" / "code" / "thesis.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("three years of work")
    with pytest.raises(OutputExists, match="not ours to remove"):
        merge(plan(), tmp_path / "out", overwrite=overwrite)
    assert files_under(tmp_path / "out") == {"code/thesis.txt": b"three years of work"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("target", ["nowhere", "elsewhere"])
def test_a_link_in_the_way_is_refused_before_anything_is_written(
    target: str, overwrite: bool, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "out" / "code"
    link.parent.mkdir()
    link.symlink_to(tmp_path / target)
    with pytest.raises(OutputExists, match=r"code is a symbolic link.*move it away"):
        merge(plan(), tmp_path / "out", overwrite=overwrite)
    assert list(link.parent.iterdir()) == [link]


def test_a_foreign_file_in_a_finished_checkpoint_keeps_it_from_being_replaced(
    tmp_path: Path,
) -> None:
    merge(plan(), tmp_path / "out")
    (tmp_path / "out/code/notes.txt").write_text("mine")
    with pytest.raises(OutputExists, match=r"notes\.txt"):
        merge(plan(), tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/code/notes.txt").exists()


def test_an_empty_directory_in_the_way_is_used(tmp_path: Path) -> None:
    (tmp_path / "out" / "code").mkdir(parents=True)
    merge(plan(), tmp_path / "out")
    assert (tmp_path / "out/code/polyvec.json").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        merge(plan(), tmp_path / "out")


def test_too_little_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    small = plan()
    huge = PlacedTensor("huge", (1 << 59,), PAGE_BYTES, 1 << 60)
    too_large = replace(small, files=(replace(small.files[0], tensors=(huge,)),))
    with pytest.raises(
        NotEnoughSpace, match=r"writes 3458764513.* GB, and the file system of .* GB"
    ):
        merge(too_large, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_links_are_refused_the_shared_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    report = merge(plan(), tmp_path / "out")
    assert report.bytes_linked == 0
    shared = [tmp_path / "out" / task / "model-00002-of-00002.safetensors" for task in TASKS]
    assert len({path.stat().st_ino for path in shared}) == 3
    assert len({path.read_bytes() for path in shared}) == 1


def test_a_value_beyond_float16_is_named(mini: Path, tmp_path: Path) -> None:
    tensors = golden_base()
    tensors["model.norm.weight"][5] = 70000.0
    save_as_one_file(mini, tensors)
    with pytest.raises(NonFiniteError, match=r"model.norm.weight holds 70144.*ends at 65504"):
        merge(plan(mini, dtype="float16"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    ["model.norm.weight", "model.layers.2.mlp.up_proj.weight", "multi_vector_projector.bias"],
)
def test_a_base_value_that_is_no_number_is_named(name: str, mini: Path, tmp_path: Path) -> None:
    tensors = golden_base()
    tensors[name].view(-1)[7] = float("inf")
    save_as_one_file(mini, tensors)
    with pytest.raises(
        NonFiniteError, match=rf"{name} in .*model.safetensors holds a NaN or an inf"
    ):
        merge(plan(mini), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_progress_ends_at_the_whole_base(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    merge(plan(), tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    base = sum(tensor.nbytes for tensor in golden_base().values())
    assert calls[-1] == (base, base)


def test_torch_keeps_its_number_of_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    merge(plan(), tmp_path / "out")
    assert torch.get_num_threads() == before


def test_merging_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    merge(plan(), tmp_path / "one")
    merge(plan(), tmp_path / "two")
    assert files_under(tmp_path / "one") == files_under(tmp_path / "two")
