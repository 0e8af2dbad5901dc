import asyncio
import threading
from pathlib import Path

import pytest
import torch

from pooling import NonFiniteError
from serving.engine.external import ExternalPooler
from serving.engine.fake import fake_projector, fake_token_embeddings
from serving.engine.pool_batches import PoolBatches
from serving.engine.protocol import Pooled, TextPrompt, Want
from serving.errors import NoVectorsError
from serving.manifest import read_manifest

BOTH = Want(single=True, multi=True)


class CountingPooler(ExternalPooler):
    """Notes in which thread it pools what."""

    def pool(self, prompt, token_ids, token_embeddings, want):
        calls.append((threading.get_ident(), len(token_ids)))
        return super().pool(prompt, token_ids, token_embeddings, want)


calls: list[tuple[int, int]] = []


@pytest.fixture
def pooler(merged_float32: Path) -> ExternalPooler:
    calls.clear()
    manifest = read_manifest(merged_float32 / "code")
    assert manifest.multi_vector_dim is not None
    projector = fake_projector(manifest.multi_vector_dim, manifest.hidden_size)
    return CountingPooler(manifest, projector)


def texts(count: int) -> list[tuple[TextPrompt, torch.Tensor]]:
    ids = [tuple(range(3, 5 + index)) for index in range(count)]
    return [(TextPrompt(of_one), fake_token_embeddings(of_one, 64)) for of_one in ids]


@pytest.mark.parametrize("is_quick", [True, False])
def test_outputs_that_come_together_are_pooled_in_one_thread_in_order(
    pooler: ExternalPooler, monkeypatch: pytest.MonkeyPatch, is_quick: bool
) -> None:
    if not is_quick:
        monkeypatch.setattr("serving.engine.pool_batches._QUICK_VALUES", 0)

    async def scenario() -> None:
        batches = PoolBatches(pooler)
        pooled = await asyncio.gather(
            *(batches.pool(prompt, prompt.token_ids, rows, BOTH) for prompt, rows in texts(20))
        )
        assert [num_tokens for _, num_tokens in calls] == list(range(2, 22))
        assert len({thread for thread, _ in calls}) == 1
        assert (threading.get_ident() in {thread for thread, _ in calls}) == is_quick
        for (prompt, rows), got in zip(texts(20), pooled, strict=True):
            expected = pooler.pool(prompt, prompt.token_ids, rows, BOTH)
            assert got.token_ids == expected.token_ids
            assert torch.equal(got.single, expected.single)
            assert torch.equal(got.multi, expected.multi)

    asyncio.run(scenario())


def test_rows_that_are_not_the_prompts_are_refused_and_not_averaged(
    pooler: ExternalPooler,
) -> None:
    async def scenario() -> None:
        batches = PoolBatches(pooler)
        (first, second, third) = texts(3)
        # As vLLM gives them for a prompt that it began, took out and began again; and for a cached prefix.
        for rows in (torch.cat([second[1][:2], second[1]]), second[1][1:]):
            results = await asyncio.gather(
                batches.pool(first[0], first[0].token_ids, first[1], BOTH),
                batches.pool(second[0], second[0].token_ids, rows, BOTH),
                batches.pool(third[0], third[0].token_ids, third[1], BOTH),
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [Pooled, NoVectorsError, Pooled]

    asyncio.run(scenario())


def test_large_outputs_are_pooled_side_by_side(
    pooler: ExternalPooler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.engine.pool_batches._BATCH_VALUES", 64 * 5)

    async def scenario() -> None:
        batches = PoolBatches(pooler)
        pooled = await asyncio.gather(
            *(batches.pool(prompt, prompt.token_ids, rows, BOTH) for prompt, rows in texts(4))
        )
        assert [len(item.token_ids) for item in pooled] == [2, 3, 4, 5]
        assert sorted(num_tokens for _, num_tokens in calls) == [2, 3, 4, 5]

    asyncio.run(scenario())


def test_one_that_cannot_be_pooled_or_is_no_longer_wanted_leaves_the_others_alone(
    pooler: ExternalPooler,
) -> None:
    async def scenario() -> None:
        batches = PoolBatches(pooler)
        (first, second, third) = texts(3)
        first[1][0, 0] = torch.nan
        tasks = [
            asyncio.create_task(batches.pool(prompt, prompt.token_ids, rows, BOTH))
            for prompt, rows in (first, second, third)
        ]
        await asyncio.sleep(0)
        tasks[1].cancel()
        with pytest.raises(NonFiniteError):
            await tasks[0]
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        assert isinstance(await tasks[2], Pooled)

    asyncio.run(scenario())


@pytest.mark.parametrize("quick_values", [0, 10**6])
def test_a_bug_in_pooling_reaches_everyone_who_waits(
    pooler: ExternalPooler, monkeypatch: pytest.MonkeyPatch, quick_values: int
) -> None:
    monkeypatch.setattr("serving.engine.pool_batches._QUICK_VALUES", quick_values)

    async def scenario() -> None:
        batches = PoolBatches(pooler)
        (prompt, rows), _ = texts(2)
        calls_in_flight = [
            asyncio.create_task(batches.pool(prompt, prompt.token_ids, bad, BOTH))
            for bad in (rows, torch.ones(2, 2, 2))
        ]
        done = await asyncio.gather(*calls_in_flight, return_exceptions=True)
        assert all(isinstance(error, Exception) for error in done)
        assert not any(isinstance(error, NonFiniteError) for error in done)

    asyncio.run(scenario())
