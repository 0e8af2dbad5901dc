"""Whether numbers are numbers: the search for NaN, infinities and overflow.

One pass over data that is in the processor's cache: the sum of squares of a block is finite and
small only if every element is, so the exact search runs only where that sum is suspicious.
Deliberately knows no file format and no adapter semantics.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float32
from torch import Tensor

from merge_tools.adapter import Adapter
from merge_tools.buffers import allocate
from merge_tools.dtypes import FLOAT32, DType
from merge_tools.errors import NonFiniteError
from merge_tools.reading import Reader

__all__ = ["all_fit", "check_adapter_values"]

BLOCK_ELEMENTS = 1 << 20


def all_fit(values: Float32[Tensor, "*shape"], dtype: DType) -> bool:
    """Whether every value is finite and stays finite when rounded to `dtype`."""
    flat = values.reshape(-1)
    # Half the bound leaves room for the rounding errors of the sum itself.
    if float(torch.dot(flat, flat)) < 0.5 * dtype.largest:
        return True
    return bool(torch.isfinite(values.to(dtype.torch)).all())


def check_adapter_values(adapters: Sequence[Adapter]) -> None:
    """Reads every value of every adapter.

    Raises:
        NonFiniteError: one of them is NaN or infinite.
    """
    buffer = allocate(Reader.buffer_bytes(BLOCK_ELEMENTS * FLOAT32.num_bytes))
    wide = torch.empty(BLOCK_ELEMENTS)
    with Reader() as reader:
        for adapter in adapters:
            factors = [t for pair in adapter.pairs.values() for t in (pair.a, pair.b)]
            for tensor in (*factors, *adapter.replaced.values()):
                for first in range(0, tensor.num_elements, BLOCK_ELEMENTS):
                    count = min(BLOCK_ELEMENTS, tensor.num_elements - first)
                    values = reader.read(tensor, first, count, buffer)
                    if not all_fit(wide[:count].copy_(values), FLOAT32):
                        raise NonFiniteError(
                            f"{tensor.name} in {tensor.path} holds a NaN or an infinity; the "
                            "adapter is damaged or its training diverged. Fetch it again."
                        )
