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
from merge_tools.dtypes import DType
from merge_tools.errors import NonFiniteError
from merge_tools.reading import Reader, values_of
from merge_tools.shards import StoredTensor

__all__ = ["all_fit", "check_adapter_values"]


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
    with Reader() as reader:
        for adapter in adapters:
            factors = [t for pair in adapter.pairs.values() for t in (pair.a, pair.b)]
            for tensor in (*factors, *adapter.replaced.values()):
                _check(reader, tensor)


def _check(reader: Reader, tensor: StoredTensor) -> None:
    for values in values_of(reader, tensor):
        if not bool(torch.isfinite(values).all()):
            raise NonFiniteError(
                f"{tensor.name} in {tensor.path} holds a NaN or an infinity; the adapter is "
                "damaged or its training diverged. Fetch it again."
            )
