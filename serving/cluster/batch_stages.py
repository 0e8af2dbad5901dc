"""The two stages of a batch job, as Ray Data runs them: reading sections, and embedding chunks.

What fails on purpose travels as a value, so that the driver has the error itself and not Ray's account of it.
"""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict, cast

from serving.batch.job import Job
from serving.batch.keeper import StartEngine
from serving.batch.rows import Chunk
from serving.batch.source import Section
from serving.batch.tally import Tally
from serving.batch.worker import ChunkWorker
from serving.errors import PolyvecError
from serving.loop import LoopThread


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


class EngineStage:
    """An actor's engine; called from several threads, with a chunk each."""

    def __init__(self, job: Job, start: StartEngine) -> None:
        self._loop = LoopThread("polyvec-batch")
        self._failure: Failed | None = None

        async def make() -> ChunkWorker:
            return ChunkWorker(job, start)

        try:
            self._worker = self._loop.run(make())
        except PolyvecError as error:
            # An actor whose construction fails is no error that Ray hands on as it is.
            self._failure = Failed(error)

    def __call__(self, row: Parcel) -> Parcel:
        """Embed a chunk and write its file."""
        chunk = cast(Chunk | Failed, content(row))
        if isinstance(chunk, Failed):
            return row
        if self._failure is not None:
            return parcel(self._failure)
        try:
            return parcel(Done(chunk.index, self._loop.run(self._worker.embed(chunk))))
        except PolyvecError as error:
            return parcel(Failed(error))
