"""Rows of Arrow's record batches, where they are in any column.

It does not know where batches come from.
"""

from collections.abc import Iterator

import pyarrow as pa

from serving.batch.content import Cells, Columns, Place, row_of
from serving.batch.rows import Rejected, Row


def rows_of(
    batch: pa.RecordBatch, columns: Columns, first: Place, number: int
) -> Iterator[Row | Rejected]:
    """The rows of `batch`.

    Args:
        batch: with any of the columns.
        columns: which are read.
        first: label and directory of what the batch is from.
        number: of the batch's first row there, from 1.
    """
    names = batch.schema.names
    arrays = [batch.column(name) if name in names else None for name in columns.names]
    for index in range(batch.num_rows):
        place = Place(f"{first.where}:{number + index}", first.directory)
        try:
            values = [None if array is None else array[index].as_py() for array in arrays]
        except (ValueError, OverflowError, pa.ArrowException) as error:
            yield place.rejected(f"The row has a value that cannot be read: {error}.")
            continue
        yield row_of(Cells(*values), place, columns)
