"""The forms and spellings a source may have, and where it may come from."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_tools import (
    CorruptShard,
    SourceError,
    SourceNotFound,
    TaskError,
    merge,
    plan_merge,
    resolve_source,
)
from tests.merge.builders import (
    TASKS,
    edit_adapter,
    edit_json,
    files_under,
    golden_adapter,
    golden_base,
    loaded,
    merged_by_peft,
    new_spelling,
    save_as_one_file,
    save_peft_adapter,
)
from tests.paths import GOLDEN_CHECKPOINT

LORA = peft.LoraConfig(r=4, lora_alpha=10, target_modules=["q_proj", "v_proj"])


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    out = tmp_path_factory.mktemp("expected")
    merge(plan_merge(resolve_source(GOLDEN_CHECKPOINT)), out)
    return {task: loaded(out / task) for task in TASKS}


def assert_merges_to(source: Path, out: Path, expected: dict[str, dict[str, torch.Tensor]]) -> None:
    report = merge(plan_merge(resolve_source(source)), out)
    assert sorted(path.name for path in report.checkpoints) == sorted(expected)
    for task, tensors in expected.items():
        got = loaded(out / task)
        assert got.keys() == tensors.keys()
        assert all(torch.equal(got[name], tensors[name]) for name in tensors)


def test_a_single_file_merges_like_shards(
    mini: Path, tmp_path: Path, expected: dict[str, dict[str, torch.Tensor]]
) -> None:
    save_as_one_file(mini, golden_base())
    assert_merges_to(mini, tmp_path / "out", expected)


def test_a_base_in_new_spelling_merges_alike_and_keeps_its_spelling(
    mini: Path, tmp_path: Path, expected: dict[str, dict[str, torch.Tensor]]
) -> None:
    save_as_one_file(mini, {new_spelling(name): t for name, t in golden_base().items()})
    assert_merges_to(mini, tmp_path / "out", expected)
    index = json.loads((tmp_path / "out/code/model.safetensors.index.json").read_text())
    assert all(name.startswith(("model.language_model.", "model.visual."))
               for name in index["weight_map"])  # fmt: skip


def test_an_adapter_in_old_spelling_merges_alike(
    mini: Path, tmp_path: Path, expected: dict[str, dict[str, torch.Tensor]]
) -> None:
    edit_adapter(
        mini / "adapters",
        lambda state: {n.replace("model.language_model.", "model."): t for n, t in state.items()},
    )
    assert_merges_to(mini, tmp_path / "out", expected)


def test_an_adapter_of_the_headless_model_merges_alike(
    mini: Path, tmp_path: Path, expected: dict[str, dict[str, torch.Tensor]]
) -> None:
    edit_adapter(
        mini / "adapters",
        lambda state: {
            n.replace("model.model.language_model.", "model.language_model."): t
            for n, t in state.items()
        },
    )
    # The published regex wants "model" in the path, which this spelling has too.
    assert_merges_to(mini, tmp_path / "out", expected)


def test_one_adapter_directory_for_each_task_merges_alike(
    mini: Path, tmp_path: Path, expected: dict[str, dict[str, torch.Tensor]]
) -> None:
    split_adapters(mini)
    assert_merges_to(mini, tmp_path / "out", expected)


def test_a_bare_base_with_named_adapters_merges_alike(
    mini: Path, tmp_path: Path, expected: dict[str, dict[str, torch.Tensor]]
) -> None:
    split_adapters(mini)
    elsewhere = mini.rename(tmp_path / "elsewhere")
    adapters = elsewhere / "adapters"
    adapters.rename(tmp_path / "loras")
    plan = plan_merge(
        resolve_source(elsewhere), adapters={task: tmp_path / "loras" / task for task in TASKS}
    )
    merge(plan, tmp_path / "out")
    for task in TASKS:
        got = loaded(tmp_path / "out" / task)
        assert all(torch.equal(got[name], expected[task][name]) for name in got)


def split_adapters(source: Path) -> None:
    """Turns the multi-task file into one ordinary PEFT directory for each task."""
    state = golden_adapter()
    for task in TASKS:
        directory = source / "adapters" / task
        directory.mkdir()
        shutil.copy(source / "adapters" / "adapter_config.json", directory)
        part = {n.replace(f".{task}.", "."): t for n, t in state.items() if f".{task}." in n}
        save_file(part, directory / "adapter_model.safetensors")
    for path in (source / "adapters").glob("adapter_*"):
        path.unlink()


def test_a_peft_directory_is_a_task_named_after_itself_or_as_told(
    qwen_base: Path, tmp_path: Path
) -> None:
    source = resolve_source(save_peft_adapter(tmp_path / "legal-search", qwen_base, LORA))
    assert plan_merge(source).tasks == ("legal-search",)
    assert plan_merge(source, tasks=["law"]).tasks == ("law",)
    with pytest.raises(TaskError, match="one task"):
        plan_merge(source, tasks=["law", "tax"])


def test_a_directory_whose_name_no_task_may_have_says_how_to_name_it(
    qwen_base: Path, tmp_path: Path
) -> None:
    source = resolve_source(save_peft_adapter(tmp_path / "my lora", qwen_base, LORA))
    with pytest.raises(TaskError, match=r"'my lora' cannot name a task.*--task NAME"):
        plan_merge(source)
    assert plan_merge(source, tasks=["law"]).tasks == ("law",)


def test_an_adapter_file_of_several_tasks_is_chosen_from_like_a_checkpoint(mini: Path) -> None:
    source = resolve_source(mini / "adapters")
    assert plan_merge(source, base=mini).tasks == tuple(sorted(TASKS))
    assert plan_merge(source, base=mini, tasks=["retrieval"]).tasks == ("retrieval",)
    chosen = plan_merge(source, base=mini, tasks=["text-matching", "code"])
    assert chosen.tasks == ("text-matching", "code")
    with pytest.raises(TaskError, match=r"no task 'law'. It has code, retrieval, text-matching"):
        plan_merge(source, base=mini, tasks=["law"])


def test_a_lone_adapter_that_peft_called_default_is_named_like_one_without_a_name(
    qwen_base: Path, tmp_path: Path
) -> None:
    adapter = save_peft_adapter(tmp_path / "mine", qwen_base, LORA)
    edit_adapter(
        adapter,
        lambda s: {n.replace(".weight", ".default.weight"): t for n, t in s.items()},
    )
    assert plan_merge(resolve_source(adapter)).tasks == ("mine",)
    assert plan_merge(resolve_source(adapter), tasks=["law"]).tasks == ("law",)


def test_a_peft_directory_takes_its_base_from_its_config_or_as_told(
    qwen_base: Path, tmp_path: Path
) -> None:
    adapter = save_peft_adapter(tmp_path / "mine", qwen_base, LORA)
    assert plan_merge(resolve_source(adapter)).base.root == qwen_base.resolve()
    edit_json(adapter / "adapter_config.json", base_model_name_or_path="/gone/for/good")
    with pytest.raises(SourceNotFound, match=r"names the base model '/gone/for/good'.*base="):
        plan_merge(resolve_source(adapter))
    plan = plan_merge(resolve_source(adapter), base=qwen_base)
    merge(plan, tmp_path / "out")
    expected = merged_by_peft(qwen_base, adapter, torch.bfloat16)
    got = loaded(tmp_path / "out" / "mine")
    assert got
    assert all(torch.equal(got[name], expected[name]) for name in got)


def test_only_the_chosen_tasks_are_merged(mini: Path, tmp_path: Path) -> None:
    plan = plan_merge(resolve_source(mini), tasks=["code"])
    merge(plan, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["code"]
    with pytest.raises(TaskError, match=r"no task 'cod'. It has code, retrieval, text-matching"):
        plan_merge(resolve_source(mini), tasks=["cod"])
    with pytest.raises(TaskError, match="name each once"):
        plan_merge(resolve_source(mini), tasks=["code", "code"])


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "two words"])
def test_a_task_that_cannot_name_a_directory_is_refused(
    name: str, qwen_base: Path, tmp_path: Path
) -> None:
    adapter = save_peft_adapter(tmp_path / "mine", qwen_base, LORA)
    with pytest.raises(TaskError, match="names a directory"):
        plan_merge(resolve_source(qwen_base), adapters={name: adapter})


def test_a_base_without_adapters_says_what_is_missing(qwen_base: Path) -> None:
    with pytest.raises(
        SourceNotFound, match=r"holds no adapters: neither adapters/adapter_config.*--adapter TASK="
    ):
        plan_merge(resolve_source(qwen_base))


@pytest.mark.parametrize("source", ["./no/such/dir", "/no/such/dir", "a/b/c", "what?", ""])
def test_what_is_neither_a_directory_nor_a_hub_id_is_refused_at_once(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if source:
        with pytest.raises(SourceNotFound, match="cannot be a hub id"):
            resolve_source(source)
    else:
        assert resolve_source(".").root == tmp_path.resolve()


def test_a_file_is_no_source(mini: Path) -> None:
    with pytest.raises(SourceNotFound, match="is a file"):
        resolve_source(mini / "config.json")


def test_a_revision_belongs_to_hub_ids_only(mini: Path) -> None:
    with pytest.raises(SourceError, match="Leave the revision out"):
        resolve_source(mini, revision="main")


def in_hub_cache(mini: Path, cache: Path, commit: str) -> Path:
    """Lays a checkpoint out as huggingface_hub's cache does: links to blobs named by sha256."""
    repository = cache / "models--jinaai--jina-embeddings-v4"
    snapshot = repository / "snapshots" / commit
    (repository / "blobs").mkdir(parents=True)
    for path in (path for path in mini.rglob("*") if path.is_file()):
        blob = repository / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, blob)
        link = snapshot / path.relative_to(mini)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return snapshot


def test_a_snapshot_in_the_hubs_cache_is_known_by_its_name_and_commit(
    mini: Path, tmp_path: Path
) -> None:
    snapshot = in_hub_cache(mini, tmp_path / "cache", "a" * 40)
    source = resolve_source(snapshot)
    assert (source.name, source.revision) == ("jinaai/jina-embeddings-v4", "a" * 40)
    merge(plan_merge(source, check_hashes=True), tmp_path / "out")
    record = json.loads((tmp_path / "out/code/polyvec.json").read_text())["merge"]
    assert record["source"] == {"name": "jinaai/jina-embeddings-v4", "revision": "a" * 40}


@pytest.mark.parametrize("pattern", ["model-00001*", "adapters/adapter_model*"])
def test_a_file_that_differs_from_its_recorded_hash_is_named(
    pattern: str, mini: Path, tmp_path: Path
) -> None:
    snapshot = in_hub_cache(mini, tmp_path / "cache", "a" * 40)
    [path] = snapshot.glob(pattern)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.resolve().write_bytes(data)
    plan_merge(resolve_source(snapshot))
    with pytest.raises(CorruptShard, match=rf"{path.name} is damaged: sha256 is"):
        plan_merge(resolve_source(snapshot), check_hashes=True)


def test_a_download_into_a_directory_is_known_by_its_commit_and_checked(mini: Path) -> None:
    def record(path: Path, etag: str) -> None:
        relative = path.relative_to(mini)
        metadata = mini / ".cache/huggingface/download" / f"{relative}.metadata"
        metadata.parent.mkdir(parents=True, exist_ok=True)
        metadata.write_text(f"{'b' * 40}\n{etag}\n1700000000.0\n")

    record(mini / "config.json", "0" * 40)
    for path in mini.rglob("*.safetensors"):
        record(path, hashlib.sha256(path.read_bytes()).hexdigest())
    source = resolve_source(mini)
    assert source.revision == "b" * 40
    plan_merge(source, check_hashes=True)
    record(mini / "model-00002-of-00002.safetensors", "c" * 64)
    with pytest.raises(CorruptShard, match="model-00002-of-00002"):
        plan_merge(source, check_hashes=True)


def test_a_hash_check_without_hashes_is_refused(mini: Path) -> None:
    with pytest.raises(SourceError, match="No sha256 is recorded"):
        plan_merge(resolve_source(mini), check_hashes=True)


def test_a_hub_that_does_not_answer_is_said_so() -> None:
    import subprocess
    import sys

    # In a process of its own, because the hub's address is read once, at import.
    code = "from merge_tools import *\ntry:\n resolve_source('owner/name')\nexcept HubUnreachable as e:\n print('refused:', e)"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent/hf", "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert "refused: owner/name is no directory here" in result.stdout


def _rewrite(path: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_an_lm_head_that_repeats_the_embeddings_is_left_out_and_said_so(
    mini: Path, tmp_path: Path
) -> None:
    tensors = golden_base()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_as_one_file(mini, tensors)
    plan = plan_merge(resolve_source(mini))
    assert "lm_head.weight is not used for embeddings and is left out" in plan.describe()
    merge(plan, tmp_path / "out")
    assert "lm_head.weight" not in loaded(tmp_path / "out/code")


def test_an_untied_lm_head_is_demanded_and_kept(mini: Path, tmp_path: Path) -> None:
    for part in (None, "text_config"):
        config = json.loads((mini / "config.json").read_text())
        (config if part is None else config[part])["tie_word_embeddings"] = False
        (mini / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=r"lacks lm_head\.weight"):
        plan_merge(resolve_source(mini))
    tensors = golden_base()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_as_one_file(mini, tensors)
    merge(plan_merge(resolve_source(mini)), tmp_path / "out")
    assert torch.equal(loaded(tmp_path / "out/code")["lm_head.weight"], tensors["lm_head.weight"])


def test_planning_writes_nothing(mini: Path) -> None:
    before = files_under(mini)
    plan_merge(resolve_source(mini)).describe()
    assert files_under(mini) == before
