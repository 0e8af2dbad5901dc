"""Random values streamed into safetensors files.

It knows a plan of tensors and how a file is laid out, and nothing of the model.

One block of normal values is drawn, and every tensor reads it from a place of its own, round and
round: drawing each of 3.75 billion values takes far longer than writing them. The block's length is
prime, so that no two rows of a matrix read the same values.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from benchmarks.synthetic_plan import (
    Planned,
    Shape,
    plan_projector,
    plan_text,
    plan_vision,
    split,
)

BLOCK_VALUES = 16_777_213
"""A prime just below 2**24: 64 MiB of float32."""
CHUNK_VALUES = 1 << 20

DTYPES = {
    "bfloat16": (torch.bfloat16, "BF16"),
    "float16": (torch.float16, "F16"),
    "float32": (torch.float32, "F32"),
}


@dataclass(frozen=True, slots=True)
class Noise:
    """A block of normal values that every tensor reads from a place of its own."""

    block: torch.Tensor
    dtype_name: str

    @classmethod
    def draw(cls, seed: int, dtype_name: str) -> "Noise":
        """The block for a seed."""
        generator = torch.Generator().manual_seed(seed)
        return cls(torch.randn(BLOCK_VALUES, generator=generator), dtype_name)

    @property
    def value_bytes(self) -> int:
        """Bytes of one value as written."""
        return DTYPES[self.dtype_name][0].itemsize

    def chunks(self, planned: Planned) -> Iterator[torch.Tensor]:
        """The tensor's values in order, a few megabytes at a time."""
        dtype = DTYPES[self.dtype_name][0]
        position = zlib.crc32(planned.name.encode()) % BLOCK_VALUES
        left = planned.num_values
        while left:
            taken = min(left, CHUNK_VALUES, BLOCK_VALUES - position)
            values = self.block[position : position + taken] * planned.std
            if planned.mean:
                values += planned.mean
            yield values.to(dtype)
            position = (position + taken) % BLOCK_VALUES
            left -= taken


def write_safetensors(path: Path, plan: Sequence[Planned], noise: Noise) -> int:
    """Writes one file tensor by tensor and returns the bytes of its tensors.

    Format: the length of the header as a little-endian u64, the header as JSON padded with spaces
    to 8 bytes, the values. https://github.com/huggingface/safetensors#format
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for planned in plan:
        end = offset + planned.num_values * noise.value_bytes
        header[planned.name] = {
            "dtype": DTYPES[noise.dtype_name][1],
            "shape": planned.shape,
            "data_offsets": (offset, end),
        }
        offset = end
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for planned in plan:
            _write_values(file, planned, noise)
    return offset


def _write_values(file: BinaryIO, planned: Planned, noise: Noise) -> None:
    for chunk in noise.chunks(planned):
        file.write(chunk.view(torch.uint8).numpy().data)


def write_weights(directory: Path, shape: Shape, noise: Noise, num_shards: int) -> int:
    """Writes the shards and their index, and returns the bytes of their tensors."""
    shards = split([*plan_vision(shape), *plan_text(shape), *plan_projector(shape)], num_shards)
    weight_map, total_bytes = {}, 0
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{num_shards:05d}.safetensors"
        total_bytes += write_safetensors(directory / name, shard, noise)
        weight_map.update({planned.name: name for planned in shard})
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    text = json.dumps(index, indent=1, sort_keys=True)
    (directory / "model.safetensors.index.json").write_text(text)
    return total_bytes
