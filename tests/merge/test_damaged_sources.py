"""A source that is damaged, incomplete or changing: named, and nothing is written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from merge_tools import (
    CorruptShard,
    MergeToolsError,
    NonFiniteError,
    SourceError,
    SourceNotFound,
    merge,
    plan_merge,
    resolve_source,
)
from merge_tools.plan import MergePlan
from tests.merge.builders import files_under


def plan(source: Path) -> MergePlan:
    return plan_merge(resolve_source(source))


def truncate_data(mini: Path) -> None:
    path = mini / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-4096])


def truncate_header(mini: Path) -> None:
    path = mini / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def empty_shard(mini: Path) -> None:
    (mini / "model-00001-of-00002.safetensors").write_bytes(b"")


def lengthen(mini: Path) -> None:
    path = mini / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")


def flip_header(mini: Path) -> None:
    path = mini / "model-00001-of-00002.safetensors"
    data = bytearray(path.read_bytes())
    data[8] ^= 1
    path.write_bytes(data)


def lfs_pointer(mini: Path) -> None:
    path = mini / "model-00001-of-00002.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def lose_shard(mini: Path) -> None:
    (mini / "model-00001-of-00002.safetensors").unlink()


def _edit_index(mini: Path, edit: Callable[[dict[str, str]], None]) -> None:
    path = mini / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    edit(index["weight_map"])
    path.write_text(json.dumps(index))


def index_too_short(mini: Path) -> None:
    _edit_index(mini, lambda weight_map: weight_map.pop("model.norm.weight"))


def index_too_long(mini: Path) -> None:
    _edit_index(mini, lambda m: m.update({"model.more.weight": "model-00002-of-00002.safetensors"}))


def index_outside(mini: Path) -> None:
    _edit_index(mini, lambda m: m.update({"model.norm.weight": "../../secret.safetensors"}))


def truncate_adapter(mini: Path) -> None:
    path = mini / "adapters/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def lose_adapter(mini: Path) -> None:
    (mini / "adapters/adapter_model.safetensors").unlink()


def break_config(mini: Path) -> None:
    (mini / "config.json").write_text('{"hidden_size": 64,')


def twice_in_config(mini: Path) -> None:
    path = mini / "config.json"
    path.write_text(path.read_text().replace('"hidden_act"', '"hidden_size": 128, "hidden_act"', 1))


def lose_config(mini: Path) -> None:
    (mini / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "error", "named"),
    [
        (truncate_data, CorruptShard, r"is truncated: got \d+ bytes, expected 712032"),
        (truncate_header, CorruptShard, r"truncated or not a safetensors file"),
        (empty_shard, CorruptShard, r"truncated or not a safetensors file"),
        (lengthen, CorruptShard, r"longer than its header says: got 291049 bytes, expected 291048"),
        (flip_header, CorruptShard, r"damaged header"),
        (lfs_pointer, CorruptShard, r"git-lfs pointer"),
        (lose_shard, SourceNotFound, r"names the shard model-00001-of-00002.safetensors, which is"),
        (index_too_short, CorruptShard, r"holds the tensor model.norm.weight, which .* no file"),
        (index_too_long, CorruptShard, r"places model.more.weight in model-00002"),
        (index_outside, CorruptShard, r"a shard must be a .safetensors file beside the index"),
        (truncate_adapter, CorruptShard, r"adapter_model.safetensors is truncated"),
        (lose_adapter, SourceNotFound, r"has adapter_config.json but no adapter_model.safetensors"),
        (break_config, SourceError, r"config.json is not valid JSON"),
        (twice_in_config, SourceError, r"the key 'hidden_size' occurs twice"),
        (lose_config, SourceNotFound, r"has no config.json"),
    ],
)
def test_a_damaged_source_is_named_and_nothing_is_written(
    damage: Callable[[Path], None], error: type[MergeToolsError], named: str, mini: Path
) -> None:
    damage(mini)
    with pytest.raises(error, match=named):
        plan(mini)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda e: e.update(shape=[65]), r"has 128 bytes, expected 130"),
        (lambda e: e.update(shape="64"), r"no valid shape"),
        (lambda e: e.update(data_offsets=[0, 128]), r"overlap or leave a gap"),
        (lambda e: e.update(data_offsets=[-1, 5]), r"no valid data_offsets"),
        (lambda e: e.pop("data_offsets"), r"no valid data_offsets \(None\)"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(
    edit: Callable[[dict[str, object]], None], named: str, mini: Path
) -> None:
    path = mini / "model-00002-of-00002.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    edit(header["model.norm.weight"])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(CorruptShard, match=named):
        plan(mini)


def test_a_flipped_exponent_bit_in_the_base_is_named(mini: Path, tmp_path: Path) -> None:
    # The top exponent bit of a bfloat16 near one: 1.0 is 0x3F80, and 0x7F80 is infinity.
    path = mini / "model-00002-of-00002.safetensors"
    plan_ = plan(mini)
    [norm] = [tensor.base for tensor in plan_.tensors if tensor.name == "model.norm.weight"]
    data = bytearray(path.read_bytes())
    data[norm.offset : norm.offset + 2] = (0x3F80 | 0x4000).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(NonFiniteError, match=r"model.norm.weight in .*Fetch it again"):
        merge(plan(mini), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_that_shrinks_after_planning_is_named(mini: Path, tmp_path: Path) -> None:
    planned = plan(mini)
    truncate_data(mini)
    with pytest.raises(CorruptShard, match="has been changed since it was checked"):
        merge(planned, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_source_is_never_changed(mini: Path, tmp_path: Path) -> None:
    before = files_under(mini)
    merge(plan(mini), tmp_path / "out")
    assert files_under(mini) == before
