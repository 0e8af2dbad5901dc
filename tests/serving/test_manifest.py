import json
import shutil
from pathlib import Path

import pytest

from serving import CheckpointError
from serving.manifest import MANIFEST_NAME, find_tasks, read_manifest
from tests.paths import GOLDEN_CHECKPOINT


def test_what_the_merge_writes_is_what_serving_reads(merged_float32: Path) -> None:
    written = json.loads((merged_float32 / "retrieval" / MANIFEST_NAME).read_text("utf-8"))
    read = read_manifest(merged_float32 / "retrieval")
    # Both ways: nothing written goes unread, nothing read is a default.
    assert json.loads(read.model_dump_json()) == written
    assert read.task == "retrieval"
    assert len(read.tensors) > 90


def test_one_task_and_the_directory_of_all_tasks_are_both_found(merged_float32: Path) -> None:
    assert sorted(find_tasks(merged_float32)) == ["code", "retrieval", "text-matching"]
    assert find_tasks(merged_float32 / "code") == {"code": merged_float32 / "code"}


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/nowhere/at/all", "does not exist"),
        ("https://example.org/model", "is a URL"),
        (str(GOLDEN_CHECKPOINT), "adapters that are not merged yet"),
        (str(GOLDEN_CHECKPOINT / "adapters"), "is a LoRA adapter"),
        (str(GOLDEN_CHECKPOINT / "config.json"), "is a file"),
    ],
)
def test_what_is_no_merged_checkpoint_is_named_with_the_next_step(path: str, says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        find_tasks(Path(path))
    assert "polyvec merge" in str(caught.value)


def test_an_empty_directory_and_a_plain_model_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no merged checkpoint"):
        find_tasks(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"checkpoint without polyvec\.json"):
        find_tasks(tmp_path)


def test_a_staging_directory_is_not_a_task(merged_float32: Path, tmp_path: Path) -> None:
    shutil.copytree(merged_float32 / "code", tmp_path / ".code.staging")
    shutil.copytree(merged_float32 / "code", tmp_path / "code")
    assert list(find_tasks(tmp_path)) == ["code"]


def test_the_same_task_twice_is_refused(merged_float32: Path, tmp_path: Path) -> None:
    shutil.copytree(merged_float32 / "code", tmp_path / "a")
    shutil.copytree(merged_float32 / "code", tmp_path / "b")
    with pytest.raises(CheckpointError, match="both the task 'code'"):
        find_tasks(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"manifest_version": 2}, "manifest_version"),
        ({"surprise": 1}, "surprise"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"default_prompt": "title"}, "default prompt 'title'"),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused_by_field(
    merged_float32: Path, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    fields = json.loads((merged_float32 / "code" / MANIFEST_NAME).read_text("utf-8"))
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(fields | change))
    with pytest.raises(CheckpointError, match=says):
        read_manifest(tmp_path)


def test_half_a_manifest_is_refused(merged_float32: Path, tmp_path: Path) -> None:
    text = (merged_float32 / "code" / MANIFEST_NAME).read_text("utf-8")
    (tmp_path / MANIFEST_NAME).write_text(text[: len(text) // 2])
    with pytest.raises(CheckpointError, match="is not a manifest"):
        read_manifest(tmp_path)
