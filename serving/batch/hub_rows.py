"""Rows of a dataset on disk, from any row.

It does not know how a dataset is found and opened.
"""

from collections.abc import Iterator

import pyarrow as pa

from serving.batch.arrow_cells import rows_of
from serving.batch.content import Columns, Place
from serving.batch.hub_dataset import HubDataset, open_hub_dataset
from serving.batch.pieces import Cut, Slice, sizes
from serving.batch.rows import Rejected, Row

# Rows of a dataset that was shuffled or selected from are copied together, which should not be a chunk at once.
_BATCH_ROWS = 128


def cut_hub(hub: HubDataset, num_rows: int, first: int, others: int) -> Iterator[Cut]:
    """Slices of `hub`, which has `num_rows`: at most `first` rows, then `others` each."""
    row = 0
    for size in sizes(first, others):
        taken = min(size, num_rows - row)
        if not taken:
            return
        yield Cut(Slice(hub, 0, row + 1, taken), None)
        row += taken


class HubReader:
    """Rows of one dataset."""

    def __init__(self, hub: HubDataset, columns: Columns) -> None:
        dataset = open_hub_dataset(hub)
        present = set(dataset.column_names)
        self._dataset = dataset.select_columns(
            [name for name in dict.fromkeys(columns.names) if name in present]
        )
        self._columns = columns
        self._hub = Place(hub.label, hub.directory)

    def read(self, piece: Slice) -> Iterator[Row | Rejected]:
        """The rows of `piece`; fewer if the dataset has fewer."""
        row = piece.number - 1
        end = row + piece.num_rows
        for start in range(row, end, _BATCH_ROWS):
            table: pa.Table = self._dataset[start : min(end, start + _BATCH_ROWS)]
            number = start + 1
            for batch in table.to_batches():
                yield from rows_of(batch, self._columns, self._hub, number)
                number += batch.num_rows

    def close(self) -> None:
        """Let go of the dataset."""
        del self._dataset
