"""The adapters' factors in float32, kept only while their tensor is being merged.

All factors of jina-embeddings-v4 in float32 would take 0.7 GB; those of one tensor take 5 MB.
Deliberately knows no piece, no thread but for its lock, and no output.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import torch
from jaxtyping import Float32
from torch import Tensor

from merge_tools.adapter import LoraPair
from merge_tools.buffers import allocate
from merge_tools.plan import TensorPlan
from merge_tools.reading import Reader
from merge_tools.shards import StoredTensor

__all__ = ["FactorCache", "Factors"]


@dataclass(frozen=True, slots=True)
class Factors:
    """One pair, ready to be multiplied: scale * b @ a."""

    a: Float32[Tensor, "rank in"]
    b: Float32[Tensor, "out rank"]
    scale: float


class FactorCache:
    """Loads the factors of a tensor for all tasks at first need."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._lock = Lock()
        self._loaded: dict[str, Mapping[str, Factors]] = {}

    def of(self, tensor: TensorPlan) -> Mapping[str, Factors]:
        """Factors by task, for the tasks that have a pair for this tensor."""
        with self._lock:
            if tensor.name not in self._loaded:
                self._loaded[tensor.name] = {
                    task: self._load(pair) for task, pair in tensor.deltas.items()
                }
            return self._loaded[tensor.name]

    def forget(self, tensor: TensorPlan) -> None:
        """Frees a tensor's factors."""
        with self._lock:
            self._loaded.pop(tensor.name, None)

    def _load(self, pair: LoraPair) -> Factors:
        return Factors(self._read(pair.a), self._read(pair.b), pair.scale)

    def _read(self, tensor: StoredTensor) -> Float32[Tensor, "rows columns"]:
        buffer = allocate(Reader.buffer_bytes(tensor.num_bytes))
        values = self._reader.read(tensor, 0, tensor.num_elements, buffer)
        return values.to(torch.float32, copy=True).view(tensor.shape)
