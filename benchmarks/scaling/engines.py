"""An engine without a model that takes a GPU's time: a page, or a batch of texts, one after the other."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from serving.engine.protocol import Engine, ImagePrompt, Outcome, Pooled, Prompt, Want
from serving.manifest import read_manifest
from serving.settings import EngineSettings

PAGE_S = 0.025
TEXT_BATCH_S = 0.002


class TimedEngine:
    """Answers with the same vector always, when the time is over that a GPU would have taken."""

    def __init__(self, directory: Path, *, page_s: float, text_batch_s: float) -> None:
        manifest = read_manifest(directory)
        self.max_tokens: int = manifest.max_text_tokens
        self._vector = torch.nn.functional.normalize(torch.ones(manifest.hidden_size), dim=0)
        self._page_s = page_s
        self._text_batch_s = text_batch_s
        self._busy_until = 0.0

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        """See `Engine.embed`; `want` is single vectors."""
        assert want.single
        num_pages = sum(isinstance(prompt, ImagePrompt) for prompt in prompts)
        work_s = num_pages * self._page_s + (
            self._text_batch_s if num_pages < len(prompts) else 0.0
        )
        # By the clock, not by sleeping after each other: a late wake-up must not make the engine slower.
        now = time.monotonic()
        self._busy_until = max(self._busy_until, now) + work_s
        await asyncio.sleep(self._busy_until - now)
        return [Pooled(prompt.token_ids, self._vector, None) for prompt in prompts]

    async def check_health(self) -> None:
        """Always well."""

    async def close(self) -> None:
        """Nothing to stop."""


async def start_timed(
    directory: Path, settings: EngineSettings, shares: int, *, page_s: float = PAGE_S
) -> Engine:
    """For replicas."""
    del settings, shares
    return TimedEngine(directory, page_s=page_s, text_batch_s=TEXT_BATCH_S)


async def start_instant(directory: Path, settings: EngineSettings, shares: int) -> Engine:
    """For replicas of which only what stands before them is measured."""
    del settings, shares
    return TimedEngine(directory, page_s=0.0, text_batch_s=0.0)
