"""A checkpoint on disk: an index plus lazy shards.

Headers are read and every byte range is checked; no tensor is. safetensors' own reader is not used
because it maps whole files into memory and says only "invalid header" of a damaged one.
Deliberately knows no tensor name, no model and no torch operation.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from merge_tools.dtypes import DType, dtype_from_code
from merge_tools.errors import CorruptShard, SourceNotFound, UnsupportedBase
from merge_tools.jsonfile import JsonObject, read_json_object, without_duplicates

__all__ = [
    "INDEX_FILE",
    "SINGLE_FILE",
    "Checkpoint",
    "StoredTensor",
    "read_checkpoint",
    "read_shard",
]

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"

LENGTH_BYTES = 8
HEADER_BYTES_MAX = 100_000_000


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies: bytes `offset` to `offset + num_bytes` of `path`."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    path: Path
    offset: int

    @property
    def num_elements(self) -> int:
        """Product of the shape; a scalar has one."""
        return prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size on disk."""
        return self.num_elements * self.dtype.num_bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Every tensor of a model, by the name it is stored under, in file order."""

    root: Path
    tensors: Mapping[str, StoredTensor]

    @property
    def num_bytes(self) -> int:
        """Size of all tensors on disk."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())


def read_checkpoint(root: Path) -> Checkpoint:
    """Reads the index and every shard header under `root`.

    Raises:
        UnsupportedBase: only pickled weights are there, or a tensor has an unsupported dtype.
        SourceNotFound: no weights are there, or the index names a file that is missing.
        CorruptShard: a file is malformed or truncated, or index and shards disagree.
    """
    single = root / SINGLE_FILE
    index = root / INDEX_FILE
    if index.exists():
        tensors = _read_indexed(root, index)
        if single.exists() and all(tensor.path != single for tensor in tensors.values()):
            raise CorruptShard(
                f"{root} holds both {SINGLE_FILE} and shards named by {INDEX_FILE}: two checkpoints "
                "in one place. Move one of them away."
            )
    elif single.exists():
        tensors = read_shard(single)
    else:
        raise _no_weights(root)
    if not tensors:
        raise CorruptShard(f"{root} holds no tensor at all. Fetch the checkpoint again.")
    return Checkpoint(root, tensors)


def _no_weights(root: Path) -> UnsupportedBase | SourceNotFound:
    pickled = sorted(path.name for path in root.glob("*.bin"))
    if pickled:
        return UnsupportedBase(
            f"{root} holds pickled weights ({pickled[0]}), which can run code when read. "
            "Convert them to safetensors first."
        )
    return SourceNotFound(
        f"{root} has neither {SINGLE_FILE} nor {INDEX_FILE}. Point to the directory that holds "
        "the base model's weights."
    )


def _read_indexed(root: Path, index: Path) -> dict[str, StoredTensor]:
    weight_map = read_json_object(index, error=CorruptShard).nested("weight_map")
    files = _files_of(weight_map)
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(set(files.values())):
        path = root / file
        if not path.exists():
            raise SourceNotFound(
                f"{index.name} names the shard {file}, which is not in {root}. "
                "The download is incomplete: fetch the checkpoint again."
            )
        for name, tensor in read_shard(path).items():
            if files.get(name) != file:
                raise CorruptShard(
                    f"{file} holds the tensor {name}, which {index.name} places in "
                    f"{files.get(name, 'no file')}. Fetch the checkpoint again."
                )
            tensors[name] = tensor
    missing = sorted(files.keys() - tensors.keys())
    if missing:
        raise CorruptShard(
            f"{index.name} places {missing[0]} in {files[missing[0]]}, which does not hold it"
            f"{_and_more(missing)}. Fetch the checkpoint again."
        )
    return tensors


def _files_of(weight_map: JsonObject) -> dict[str, str]:
    files = {name: weight_map.text(name) for name in weight_map.values}
    for name, file in files.items():
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise CorruptShard(
                f"{weight_map.where} places {name} in {file!r}; a shard must be a .safetensors "
                "file beside the index."
            )
    return files


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def read_shard(path: Path) -> dict[str, StoredTensor]:
    """Reads and checks the header of one safetensors file; tensors come in file order.

    Raises:
        CorruptShard: the header is malformed, or its byte ranges do not fill the file exactly.
        UnsupportedBase: a tensor has a dtype other than bfloat16, float16 and float32.
    """
    header, data_start, file_bytes = _read_header(path)
    ranges = sorted(
        (_range_of(path, name, entry) for name, entry in header.items() if name != "__metadata__"),
        key=lambda item: (item[1], item[2]),
    )
    tensors: dict[str, StoredTensor] = {}
    position = 0
    for name, start, stop in ranges:
        if start != position:
            raise CorruptShard(
                f"{path}: the tensor {name} starts at byte {start} of the data, expected "
                f"{position}: tensors overlap or leave a gap. Get a fresh copy."
            )
        tensors[name] = _stored(path, name, header[name], data_start + start, stop - start)
        position = stop
    if data_start + position != file_bytes:
        state = "truncated" if file_bytes < data_start + position else "longer than its header says"
        raise CorruptShard(
            f"{path} is {state}: got {file_bytes} bytes, expected {data_start + position}. "
            "Get a fresh copy."
        )
    return tensors


def _read_header(path: Path) -> tuple[dict[str, object], int, int]:
    """The parsed header, the offset of the first data byte, and the file's size."""
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(LENGTH_BYTES)
            header_bytes = int.from_bytes(prefix, "little")
            if prefix == b"version ":
                raise CorruptShard(
                    f"{path} is a git-lfs pointer, not the weights. Run git lfs pull."
                )
            limit = min(HEADER_BYTES_MAX, file_bytes - LENGTH_BYTES)
            if len(prefix) < LENGTH_BYTES or header_bytes > limit:
                raise CorruptShard(
                    f"{path} is truncated or not a safetensors file: its header should take "
                    f"{header_bytes} bytes, the file has {file_bytes}. Get a fresh copy."
                )
            text = file.read(header_bytes)
    except OSError as cause:
        raise CorruptShard(f"{path} cannot be read: {cause.strerror}.") from cause
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as cause:
        raise CorruptShard(f"{path} has a damaged header ({cause}). Get a fresh copy.") from cause
    if not isinstance(header, dict):
        raise CorruptShard(f"{path} has a header that is no JSON object. Get a fresh copy.")
    return header, LENGTH_BYTES + header_bytes, file_bytes


def _range_of(path: Path, name: str, entry: object) -> tuple[str, int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(offset) is int for offset in offsets)
        or not 0 <= offsets[0] <= offsets[1]
    ):
        raise CorruptShard(f"{path}: {name} has no valid data_offsets ({offsets!r:.60}).")
    return name, offsets[0], offsets[1]


def _stored(path: Path, name: str, entry: object, offset: int, num_bytes: int) -> StoredTensor:
    assert isinstance(entry, dict)  # _range_of has refused everything else
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise CorruptShard(f"{path}: {name} has no valid shape ({shape!r:.60}).")
    dtype = dtype_from_code(str(entry.get("dtype")))
    if dtype is None:
        raise UnsupportedBase(
            f"{path}: {name} has dtype {entry.get('dtype')!r}; only BF16, F16 and F32 are merged. "
            "Use the unquantised checkpoint."
        )
    tensor = StoredTensor(name, dtype, tuple(shape), path, offset)
    if tensor.num_bytes != num_bytes:
        raise CorruptShard(
            f"{path}: {name} has {num_bytes} bytes, expected {tensor.num_bytes} for shape "
            f"{tensor.shape} in {dtype.name}. Get a fresh copy."
        )
    return tensor
