"""Where every tensor of a merged checkpoint will stand, to the byte, before one is written.

Knowing all offsets beforehand makes every write independent of the others, so that workers need
no order among them. A header is padded to whole pages and the tensors whose size is a multiple of
a page come first, so that their writes are page-aligned; safetensors allows both.
Deliberately knows no adapter, no arithmetic and no I/O.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from merge_tools.dtypes import DType

__all__ = ["OutputFile", "PlacedTensor", "TensorShape", "index_json", "lay_out", "one_file"]

PAGE_BYTES = 4096
SHARD_BYTES_MAX = 5_000_000_000


@dataclass(frozen=True, slots=True)
class TensorShape:
    """A tensor to be placed."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlacedTensor:
    """A tensor's place: its first byte, counted from the start of the file."""

    name: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A safetensors file to be written; `is_shared` files are one for all tasks."""

    name: str
    header: bytes
    tensors: tuple[PlacedTensor, ...]
    is_shared: bool

    @property
    def num_bytes(self) -> int:
        """Size of the finished file."""
        return len(self.header) + sum(tensor.num_bytes for tensor in self.tensors)


def lay_out(
    touched: Sequence[TensorShape], shared: Sequence[TensorShape], dtype: DType
) -> tuple[OutputFile, ...]:
    """Places a task's own tensors and the shared ones in shards of at most 5 GB each."""
    own_groups = _split(touched, dtype)
    shared_groups = _split(shared, dtype)
    num_files = len(own_groups) + len(shared_groups)
    files = []
    for number, group in enumerate((*own_groups, *shared_groups), start=1):
        name = f"model-{number:05d}-of-{num_files:05d}.safetensors"
        files.append(one_file(name, group, dtype, is_shared=number > len(own_groups)))
    return tuple(files)


def one_file(
    name: str, tensors: Sequence[TensorShape], dtype: DType, *, is_shared: bool
) -> OutputFile:
    """Places tensors in one file."""
    ordered = sorted(tensors, key=lambda tensor: _num_bytes(tensor, dtype) % PAGE_BYTES != 0)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    starts = []
    for tensor in ordered:
        stop = position + _num_bytes(tensor, dtype)
        header[tensor.name] = {
            "dtype": dtype.code,
            "shape": list(tensor.shape),
            "data_offsets": [position, stop],
        }
        starts.append(position)
        position = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % PAGE_BYTES)
    encoded = len(text).to_bytes(8, "little") + text
    placed = tuple(
        PlacedTensor(tensor.name, tensor.shape, len(encoded) + start, _num_bytes(tensor, dtype))
        for tensor, start in zip(ordered, starts, strict=True)
    )
    return OutputFile(name, encoded, placed, is_shared)


def index_json(files: Sequence[OutputFile]) -> str:
    """The text of model.safetensors.index.json over these files."""
    weight_map = {tensor.name: file.name for file in files for tensor in file.tensors}
    total = sum(tensor.num_bytes for file in files for tensor in file.tensors)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(index, indent=2) + "\n"


def _split(tensors: Sequence[TensorShape], dtype: DType) -> list[list[TensorShape]]:
    groups: list[list[TensorShape]] = []
    room = 0
    for tensor in tensors:
        num_bytes = _num_bytes(tensor, dtype)
        if not groups or num_bytes > room:
            groups.append([])
            room = SHARD_BYTES_MAX
        groups[-1].append(tensor)
        room -= num_bytes
    return groups


def _num_bytes(tensor: TensorShape, dtype: DType) -> int:
    return prod(tensor.shape) * dtype.num_bytes
