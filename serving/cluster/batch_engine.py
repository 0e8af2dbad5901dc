"""The second stage of a batch job on Ray Data: an actor with an engine, which embeds chunks and writes their files."""

from typing import cast

from serving.batch.job import Job
from serving.batch.keeper import StartEngine
from serving.batch.rows import Chunk
from serving.batch.worker import ChunkWorker
from serving.cluster.batch_reading import Done, Failed, Parcel, content, parcel
from serving.errors import PolyvecError
from serving.loop import LoopThread


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
