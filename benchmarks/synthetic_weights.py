"""Random values streamed into safetensors files.

It knows a plan of tensors and how a file is laid out, and nothing of the model.

One block of normal values is drawn, and every tensor reads it from a place of its own, round and
round: drawing or even scaling each of 3.75 billion values takes longer than writing them. The
block's length is prime, so that no two rows of a matrix read the same values.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.synthetic_plan import (
    Planned,
    Shape,
    plan_projector,
    plan_text,
    plan_vision,
    split,
)

BLOCK_VALUES = 4_194_301
"""A prime just below 2**22: 16 MiB of float32."""

DTYPES = {
    "bfloat16": (torch.bfloat16, "BF16"),
    "float16": (torch.float16, "F16"),
    "float32": (torch.float32, "F32"),
}


class Noise:
    """Blocks of normal values that every tensor reads from a place of its own.

    One block is drawn, and a scaled copy is kept for each spread that a plan asks for.
    """

    def __init__(self, seed: int, dtype_name: str) -> None:
        self.dtype_name = dtype_name
        self._dtype = DTYPES[dtype_name][0]
        self._normal = torch.randn(BLOCK_VALUES, generator=torch.Generator().manual_seed(seed))
        self._blocks: dict[tuple[float, float], torch.Tensor] = {}

    @property
    def value_bytes(self) -> int:
        """Bytes of one value as written."""
        return self._dtype.itemsize

    def runs(self, planned: Planned) -> Iterator[torch.Tensor]:
        """The tensor's values in order, in runs of at most one block."""
        block = self._block(planned.std, planned.mean)
        position = zlib.crc32(planned.name.encode()) % BLOCK_VALUES
        left = planned.num_values
        while left:
            run = block[position : position + left]
            yield run
            left -= run.numel()
            position = 0

    def _block(self, std: float, mean: float) -> torch.Tensor:
        if (std, mean) not in self._blocks:
            self._blocks[std, mean] = self._normal.mul(std).add_(mean).to(self._dtype)
        return self._blocks[std, mean]


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
            for run in noise.runs(planned):
                file.write(run.view(torch.uint8).numpy().data)
    return offset


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
