"""What travels between the stages of a batch job on Ray Data, and the first of them: reading sections.

What fails on purpose travels as a value, so that the driver has the error itself and not Ray's account of it.
Readers are many and small: nothing here imports torch.
"""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict, cast

from serving.batch.rows import Chunk
from serving.batch.source import Section
from serving.batch.tally import Tally
from serving.errors import PolyvecError


@dataclass(frozen=True, slots=True)
class Done:
    """A chunk whose file is written."""

    index: int
    tally: Tally


@dataclass(frozen=True, slots=True)
class Failed:
    """Why the job cannot go on."""

    error: PolyvecError


@dataclass(frozen=True, slots=True)
class Wanted:
    """A section and those of its chunks that are missing."""

    section: Section
    indices: tuple[int, ...]


class Parcel(TypedDict):
    """A row of the dataset: anything, pickled."""

    payload: bytes


def parcel(content: Wanted | Chunk | Done | Failed) -> Parcel:
    """`content` as a row of the dataset."""
    return {"payload": pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)}


def content(row: Parcel) -> Any:
    """The inverse of `parcel`."""
    return pickle.loads(row["payload"])


def read_section(row: Parcel) -> Iterator[Parcel]:
    """The missing chunks of a section, one at a time."""
    wanted = cast(Wanted, content(row))
    try:
        for chunk in wanted.section.chunks(wanted.indices):
            yield parcel(chunk)
    except PolyvecError as error:
        yield parcel(Failed(error))
