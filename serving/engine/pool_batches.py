"""Outputs that arrive together are pooled together: one hop to a thread for a batch, not for each text.

The hop costs more than pooling a short text does, and a step of the engine ends for hundreds of them at
once. Knows what the pooler takes, not where outputs come from.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from pooling import PoolingError
from serving.engine.external import ExternalPooler
from serving.engine.protocol import Pooled, Prompt, Want
from serving.errors import NoVectorsError

# 2048 tokens of the full model, a few milliseconds: pages are pooled side by side, and delivered soon.
_BATCH_VALUES = 2048 * 2048

# 128 tokens of the full model, less than a millisecond: a thread would not get its turn sooner.
_QUICK_VALUES = 128 * 2048


@dataclass(frozen=True, slots=True)
class _Job:
    prompt: Prompt
    token_ids: Sequence[int]
    token_embeddings: Tensor
    want: Want
    pooled: asyncio.Future[Pooled]


class PoolBatches:
    """Pools in threads, a batch at a time."""

    def __init__(self, pooler: ExternalPooler) -> None:
        self._pooler = pooler
        self._waiting: list[_Job] = []

    async def pool(
        self, prompt: Prompt, token_ids: Sequence[int], token_embeddings: Tensor, want: Want
    ) -> Pooled:
        """`ExternalPooler.pool` without holding the loop up.

        Raises:
            PoolingError, NoVectorsError: see there; the others of the batch are not affected.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            # Runs when every output of the same step has come here.
            loop.call_soon(self._flush)
        job = _Job(prompt, token_ids, token_embeddings, want, loop.create_future())
        self._waiting.append(job)
        return await job.pooled

    def _flush(self) -> None:
        jobs, self._waiting = self._waiting, []
        loop = asyncio.get_running_loop()
        for batch in _batches(jobs):
            is_quick = sum(job.token_embeddings.numel() for job in batch) <= _QUICK_VALUES
            done: asyncio.Future[list[Pooled | PoolingError | NoVectorsError]] = (
                loop.create_task(self._pool_here(batch))
                if is_quick
                else loop.run_in_executor(None, self._pool, batch)
            )
            done.add_done_callback(partial(_deliver, batch))

    async def _pool_here(
        self, batch: Sequence[_Job]
    ) -> list[Pooled | PoolingError | NoVectorsError]:
        # A task, so that a bug is kept for those who wait.
        return self._pool(batch)

    def _pool(self, batch: Sequence[_Job]) -> list[Pooled | PoolingError | NoVectorsError]:
        return [self._pool_one(job) for job in batch]

    def _pool_one(self, job: _Job) -> Pooled | PoolingError | NoVectorsError:
        try:
            return self._pooler.pool(job.prompt, job.token_ids, job.token_embeddings, job.want)
        except (PoolingError, NoVectorsError) as error:
            return error


def _batches(jobs: Sequence[_Job]) -> list[list[_Job]]:
    batches: list[list[_Job]] = [[]]
    num_values = 0
    for job in jobs:
        num_values += job.token_embeddings.numel()
        if num_values > _BATCH_VALUES and batches[-1]:
            batches.append([])
            num_values = job.token_embeddings.numel()
        batches[-1].append(job)
    return batches


def _deliver(
    batch: Sequence[_Job], done: "asyncio.Future[list[Pooled | PoolingError | NoVectorsError]]"
) -> None:
    if done.cancelled():
        for job in batch:
            job.pooled.cancel()
        return
    # Only a bug raises; it is everybody's.
    bug = done.exception()
    results = [bug] * len(batch) if bug is not None else done.result()
    for job, result in zip(batch, results, strict=True):
        if job.pooled.done():
            continue  # its caller has left
        if isinstance(result, Pooled):
            job.pooled.set_result(result)
        else:
            job.pooled.set_exception(result)
