"""The lines of a file, plain or compressed, from any line that is known; never more than one in memory.

It does not know what lines mean. Lines end in a line feed and nothing else: a record may hold every other
character that Unicode calls a line's end.
"""

import io
from typing import BinaryIO, Self, cast

import pyarrow as pa

from serving.batch.data_file import DataFile

MAX_LINE_BYTES = 64 * 1024 * 1024
"""No longer line is kept."""

_BOM = b"\xef\xbb\xbf"
_BLOCK_BYTES = 1024 * 1024


class LineReader:
    """Iterates over lines, with their ends. A line of more than `MAX_LINE_BYTES` comes as its longer beginning.

    Attributes:
        offset_bytes: where the next line begins, after decompression.
        number: of the next line, from 1.
    """

    def __init__(self, file: DataFile) -> None:
        self._source = file
        self._file = _opened(file)
        self.offset_bytes = 0
        self.number = 1

    def go_to(self, offset_bytes: int, number: int) -> None:
        """Continue at line `number`, which begins at `offset_bytes`."""
        if self._source.compression is None:
            self._file.seek(offset_bytes)
        else:
            if offset_bytes < self.offset_bytes:
                self._file.close()
                self._file = _opened(self._source)
                self.offset_bytes = 0
            while left := offset_bytes - self.offset_bytes:
                skipped = len(self._file.read(min(left, _BLOCK_BYTES)))
                if not skipped:
                    break
                self.offset_bytes += skipped
        self.offset_bytes = offset_bytes
        self.number = number

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        line = self._file.readline(MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        is_first = self.offset_bytes == 0
        self.offset_bytes += len(line)
        self.number += 1
        rest = line
        while len(rest) >= _BLOCK_BYTES and not rest.endswith(b"\n"):
            rest = self._file.readline(_BLOCK_BYTES)
            self.offset_bytes += len(rest)
        return line.removeprefix(_BOM) if is_first else line

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _opened(file: DataFile) -> BinaryIO:
    if file.compression is None:
        return file.path.open("rb", buffering=_BLOCK_BYTES)
    stream = pa.input_stream(file.path, compression=file.compression)
    return cast(BinaryIO, io.BufferedReader(stream, _BLOCK_BYTES))
