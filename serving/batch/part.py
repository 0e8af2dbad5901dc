"""One file of the output, written as outcomes come and named when it is whole.

Knows the order of the writes that makes a chunk done or not done; not how vectors are made.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from serving.batch.output import Output, publish, staging_of, write_whole
from serving.batch.rows import Rejected
from serving.batch.schema import CHUNK_KEY, VectorFormat, column_compression, plain_columns
from serving.batch.tally import Tally
from serving.batch.values import vector_columns
from serving.errors import OutputError

_ROW_GROUP_BYTES = 16 * 1024 * 1024
_ROW_GROUP_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Embedded:
    """A row, or a page of one, and its vector.

    Attributes:
        id: of the row.
        kind: what was embedded.
        page: from 1; None for what is no page.
        vector: float32 [dim], or [token, dim] for multi-vectors.
        num_tokens: of its prompt, image tokens included.
    """

    id: str
    kind: Literal["text", "image", "page"]
    page: int | None
    vector: Tensor
    num_tokens: int


Result = Embedded | Rejected


class PartWriter:
    """Writes chunk `index`; `finish` or `discard` ends it. Blocks: for threads."""

    def __init__(self, output: Output, index: int, format_: VectorFormat, metadata: bytes) -> None:
        """Begin the file under a staging name.

        Raises:
            OutputError: the output cannot be written to.
        """
        self._output, self._index, self._format = output, index, format_
        self._schema = format_.schema(metadata)
        self._staged = staging_of(output.part(index))
        self._rejected: list[Rejected] = []
        self._rows: list[Embedded] = []
        self._num_bytes = 0
        self.tally = Tally()
        """What became of the rows so far."""
        with output.errors():
            self._file = self._staged.open("wb")
        self._parquet = pq.ParquetWriter(
            self._file,
            self._schema,
            compression=column_compression(self._schema),
            use_dictionary=["kind"],
            write_statistics=plain_columns(self._schema),
        )

    def add(self, results: Sequence[Result]) -> None:
        """Take the next results, in the order of the rows.

        Raises:
            OutputError: the output cannot be written to.
        """
        for result in results:
            if isinstance(result, Rejected):
                self._rejected.append(result)
                self.tally.rejected += 1
                continue
            self._rows.append(result)
            self._num_bytes += result.vector.nbytes
            self.tally.embedded += 1
            self.tally.pages += result.kind == "page"
            self.tally.tokens += result.num_tokens
            if self._num_bytes >= _ROW_GROUP_BYTES or len(self._rows) >= _ROW_GROUP_ROWS:
                self._flush()

    def finish(self, num_rows: int) -> Tally:
        """Write what is left, and make the chunk done.

        Args:
            num_rows: rows of the source that the chunk has.

        Raises:
            OutputError: the output cannot be written to.
        """
        self.tally.rows = num_rows
        self._flush()
        with self._output.errors():
            self._parquet.add_key_value_metadata({CHUNK_KEY: self.tally.to_json()})
            self._parquet.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            # First: a chunk whose file exists is never looked at again.
            self._write_rejected(self._output.rejected(self._index))
            publish(self._staged, self._output.part(self._index))
        return self.tally

    def discard(self) -> None:
        """Leave nothing behind; after `finish` this does nothing."""
        # On a full disk, closing fails as writing did.
        with suppress(OSError, ValueError, pa.ArrowException):
            self._parquet.close()
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._staged.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._rows:
            return
        rows, self._rows, self._num_bytes = self._rows, [], 0
        embedding, scale = vector_columns([row.vector for row in rows], self._format)
        columns = {
            "id": pa.array([_unicode(row.id) for row in rows], pa.string()),
            "kind": pa.array([row.kind for row in rows], pa.string()),
            "page": pa.array([row.page for row in rows], pa.int32()),
            "embedding": embedding,
            "scale": scale,
            "num_tokens": pa.array([row.num_tokens for row in rows], pa.int32()),
        }
        table = pa.Table.from_arrays(
            [columns[name] for name in self._schema.names], schema=self._schema
        )
        with self._output.errors():
            self._parquet.write_table(table, row_group_size=len(rows))

    def _write_rejected(self, path: Path) -> None:
        if not self._rejected:
            # An earlier attempt may have rejected some.
            path.unlink(missing_ok=True)
            return
        lines = (
            orjson.dumps(
                {
                    "id": _unicode(one.id),
                    "where": _unicode(one.where),
                    "page": one.page,
                    "reason": _unicode(one.reason),
                },
                option=orjson.OPT_APPEND_NEWLINE,
            )
            for one in self._rejected
        )
        write_whole(path, b"".join(lines))


def _unicode(text: str) -> str:
    """File names may hold bytes that are no UTF-8, which Python keeps as lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def read_tally(path: Path) -> Tally:
    """What became of the rows of a chunk that is done.

    Raises:
        OutputError: the file is damaged, or none of ours.
    """
    try:
        metadata = pq.read_metadata(path).metadata or {}
        return Tally.from_json(metadata[CHUNK_KEY])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise OutputError(
            f"{path} is damaged, or polyvec did not write it ({error}). "
            "Remove it and run the same command again, which makes it anew."
        ) from error
