"""xxh3 digests of tensors, computed piece by piece in any order.

A tensor is cut into pieces of whole rows: as many as fit in 8 Mi elements, a multiple of 16 of
them, at least 16; the last piece also takes a remainder shorter than 16 rows. Its digest is the
xxh3_128 of the concatenated 16-byte digests of its pieces. Rows, not bytes, so that the same
pieces serve the multiplication; multiples of 16, because a matrix product of fewer rows is
computed by other kernels, in another order, with other last bits.

xxh3 finds corruption, not tampering: it is fast and not cryptographic.
Deliberately knows no file and no adapter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import xxhash

__all__ = [
    "Piece",
    "combined",
    "file_digest",
    "pieces_of",
    "shard_digest",
    "split_rows",
    "text_digest",
]

PIECE_ELEMENTS = 8 << 20
ROW_MULTIPLE = 16


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `first_row` to `first_row + num_rows` of a tensor whose rows have `columns` elements."""

    first_row: int
    num_rows: int
    columns: int

    @property
    def first_element(self) -> int:
        """Where the piece begins in the flattened tensor."""
        return self.first_row * self.columns

    @property
    def num_elements(self) -> int:
        """How many elements it covers."""
        return self.num_rows * self.columns


def pieces_of(shape: tuple[int, ...]) -> Sequence[Piece]:
    """The pieces of a tensor of this shape; they cover every element once, in order."""
    num_rows = shape[0] if shape else 1
    columns = prod(shape[1:])
    return [
        Piece(first, count, columns)
        for first, count in split_rows(num_rows, columns, PIECE_ELEMENTS)
    ]


def split_rows(num_rows: int, columns: int, max_elements: int) -> Sequence[tuple[int, int]]:
    """(first row, number of rows) of consecutive runs that respect the multiple of 16."""
    step = max(max_elements // max(columns, 1) // ROW_MULTIPLE, 1) * ROW_MULTIPLE
    firsts = list(range(0, max(num_rows, 1), step))
    if len(firsts) > 1 and num_rows - firsts[-1] < ROW_MULTIPLE:
        firsts.pop()
    stops = [*firsts[1:], num_rows]
    return [(first, stop - first) for first, stop in zip(firsts, stops, strict=True)]


def combined(piece_digests: Iterable[bytes]) -> str:
    """A tensor's digest in hexadecimal, from its pieces' digests in order."""
    return xxhash.xxh3_128_hexdigest(b"".join(piece_digests))


def text_digest(data: bytes) -> str:
    """Plain xxh3_128 of some bytes, in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(data)


def file_digest(path: Path) -> str:
    """Plain xxh3_128 of a file's bytes, in hexadecimal."""
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def shard_digest(header: bytes, tensor_digests: Iterable[str]) -> str:
    """A weight file's digest: xxh3_128 of its header and its tensors' digests in file order."""
    hasher = xxhash.xxh3_128(header)
    for digest in tensor_digests:
        hasher.update(bytes.fromhex(digest))
    return hasher.hexdigest()
