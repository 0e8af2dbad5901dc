"""Pixels that come from a process reach the model as those of a thread do, and as vLLM's own do."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from serving.engine.imaging import pool as pool_module
from serving.engine.protocol import Engine, Prompt, Want
from serving.engine.start import start_engine
from serving.inputs import PageImage
from serving.prompts import Prompter
from serving.settings import EngineSettings
from tests.paths import GOLDEN_CHECKPOINT

WANT = Want(single=True, multi=True)


async def embedded(engine: Engine, prompts: list[Prompt]) -> list[torch.Tensor]:
    """One after the other: a prompt that is alone in its steps has the same bits every time."""
    vectors = []
    for prompt in prompts:
        (pooled,) = await engine.embed([prompt], WANT)
        assert not isinstance(pooled, ValueError)
        assert pooled.single is not None
        assert pooled.multi is not None
        vectors.append(torch.cat([pooled.single, pooled.multi.flatten()]))
    return vectors


def test_however_an_image_is_prepared_its_vectors_are_the_same_bits(
    merged_float32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = merged_float32 / "retrieval"
    prompter = Prompter.load(checkpoint)
    files = sorted((GOLDEN_CHECKPOINT / "golden").glob("image_*.png"))
    prompts: list[Prompt] = [
        prompter.image_prompt(PageImage(path.read_bytes()), max_pixels=None) for path in files
    ]
    assert len(prompts) > 2
    used: list[int] = []
    original = pool_module.in_slot

    def in_slot(memory: Any, slot: int, *rest: Any) -> Any:
        used.append(slot)
        return original(memory, slot, *rest)

    monkeypatch.setattr(pool_module, "in_slot", in_slot)

    async def run() -> None:
        settings = EngineSettings(image_processes=1, max_images_in_flight=2)
        engine = await start_engine(checkpoint, settings)
        try:
            by_threads = await embedded(engine, prompts)
            assert not used
            monkeypatch.setattr(pool_module, "IMAGES_BEFORE_PROCESSES", 0)
            async with asyncio.timeout(120):
                while not used:
                    await embedded(engine, prompts[:1])
                    await asyncio.sleep(0.1)
            used.clear()
            by_processes = await embedded(engine, prompts)
            assert len(used) == len(prompts)
            together = await engine.embed(prompts, WANT)
            monkeypatch.setattr(engine, "_images", None)
            by_vllm = await embedded(engine, prompts)
        finally:
            monkeypatch.undo()
            await engine.close()
        for one, other, third, pooled in zip(
            by_threads, by_processes, by_vllm, together, strict=True
        ):
            assert torch.equal(one, other)
            assert torch.equal(one, third)
            assert not isinstance(pooled, ValueError)
            assert pooled.single is not None
            # Beside others sums are taken in another order.
            torch.testing.assert_close(pooled.single, one[: len(pooled.single)], atol=1e-5, rtol=0)

    asyncio.run(run())
