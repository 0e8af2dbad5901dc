"""A dataset on disk, as `datasets.Dataset.save_to_disk` writes it: which split is meant, and opening it.

It does not know what its rows are. The library is imported when there is a dataset to read: that takes
seconds.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import xxhash

from serving.batch.walk import spelled
from serving.errors import SourceError

if TYPE_CHECKING:
    from datasets import Dataset

_DATASET = "state.json"
_SPLITS = "dataset_dict.json"


def is_hub_dataset(source: Path) -> bool:
    """Whether `source` is a directory that `save_to_disk` wrote."""
    return (source / _DATASET).is_file() or (source / _SPLITS).is_file()


@dataclass(frozen=True, slots=True)
class HubDataset:
    """One split.

    Attributes:
        directory: where it is, and where its relative paths begin.
        stamp: of its files, when the source was planned.
    """

    directory: Path
    stamp: str

    @property
    def label(self) -> str:
        """Its name for messages and ids."""
        return spelled(self.directory.name)

    def check(self) -> None:
        """Make sure that it is as it was.

        Raises:
            SourceError: it has changed or is gone.
        """
        if _stamp(self.directory) != self.stamp:
            raise SourceError(
                f"The dataset {self.label} has changed since the job began. "
                "Begin again, with another output."
            )


def find_hub_dataset(source: Path, split: str | None) -> HubDataset:
    """The dataset, or its split `split`.

    Raises:
        SourceError: there is no such split, or none was named and there are several.
    """
    directory = _split_directory(source, split) if (source / _SPLITS).is_file() else source
    if directory is source and split is not None:
        raise SourceError(
            f"{source} is a dataset without splits, so there is no split {split!r}. "
            "Leave the split out."
        )
    return HubDataset(directory, _stamp(directory))


def _split_directory(source: Path, split: str | None) -> Path:
    try:
        splits = json.loads((source / _SPLITS).read_text(encoding="utf-8"))["splits"]
        names = [str(name) for name in splits]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{source / _SPLITS} does not list splits: {error}. Save the dataset again, or pass the directory of one split."
        ) from error
    known = ", ".join(names)
    match split:
        case None if len(names) == 1:
            return source / names[0]
        case None:
            raise SourceError(f"{source} has the splits {known}. Say which one, with --split.")
        case _ if split in names:
            return source / split
        case _:
            raise SourceError(
                f"{source} has no split {split!r}, but {known}. Pass one of them as --split."
            )


def _stamp(directory: Path) -> str:
    digest = xxhash.xxh3_128()
    try:
        for path in sorted(directory.iterdir()):
            found = path.stat()
            digest.update(
                repr((spelled(path.name), found.st_size, found.st_mtime_ns)).encode("utf-8")
            )
    except OSError as error:
        raise SourceError(
            f"The dataset {directory} cannot be read: {error.strerror}. Make it readable, and run this again."
        ) from error
    return digest.hexdigest()


def open_hub_dataset(hub: HubDataset) -> "Dataset":
    """The dataset, mapped into memory; its rows come as Arrow's tables, and files in them undecoded.

    Raises:
        SourceError: it cannot be read.
    """
    import datasets

    if not any(hub.directory.glob("*.arrow")):  # the library fails, in words about itself
        raise SourceError(
            f"The dataset {hub.directory} has no rows: no .arrow file is there. Save it again."
        )
    try:
        with _no_progress_bars():
            dataset = datasets.load_from_disk(str(hub.directory), keep_in_memory=False)
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        raise SourceError(
            f"The dataset {hub.directory} cannot be read: {error}. Save it again."
        ) from error
    assert isinstance(dataset, datasets.Dataset)
    return dataset.with_format("arrow")


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Of the library; the switch is the process's."""
    import datasets

    if not datasets.is_progress_bar_enabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
