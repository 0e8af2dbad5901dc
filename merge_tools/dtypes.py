"""The three number formats a weight may have here, and their names in the various files.

Deliberately knows no arithmetic and no tensor.
"""

from dataclasses import dataclass

import torch

from merge_tools.errors import UnsupportedBase

__all__ = ["BFLOAT16", "FLOAT16", "FLOAT32", "DType", "dtype_from_code", "dtype_named"]


@dataclass(frozen=True, slots=True)
class DType:
    """A number format: `code` in safetensors headers, `name` in config.json and on the CLI."""

    code: str
    name: str
    num_bytes: int
    largest: float

    @property
    def torch(self) -> torch.dtype:
        """The same format in torch."""
        return _TORCH[self.code]


BFLOAT16 = DType("BF16", "bfloat16", 2, torch.finfo(torch.bfloat16).max)
FLOAT16 = DType("F16", "float16", 2, torch.finfo(torch.float16).max)
FLOAT32 = DType("F32", "float32", 4, torch.finfo(torch.float32).max)

_ALL = (BFLOAT16, FLOAT16, FLOAT32)
_TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def dtype_from_code(code: str) -> DType | None:
    """The format with this safetensors code, or None when it is not one that is merged."""
    return next((dtype for dtype in _ALL if dtype.code == code), None)


def dtype_named(name: str) -> DType:
    """The format with this torch name.

    Raises:
        UnsupportedBase: the name is none of the three.
    """
    found = next((dtype for dtype in _ALL if dtype.name == name), None)
    if found is None:
        known = ", ".join(dtype.name for dtype in _ALL)
        raise UnsupportedBase(f"dtype must be one of {known}, got {name!r}.")
    return found
