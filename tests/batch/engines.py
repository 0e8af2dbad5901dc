"""Start functions of engines for jobs, importable by Ray's workers: sound ones, slow ones, ones that die."""

import asyncio
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serving.batch.keeper import StartEngine
from serving.engine.fake import FakeEngine
from serving.engine.protocol import Engine, Outcome, Prompt, Want
from serving.errors import EngineDeadError, EngineStartError, NoVectorsError
from serving.prompts import Prompter
from serving.settings.batch import BatchSettings


async def start_fake(directory: Path, settings: BatchSettings) -> Engine:
    return FakeEngine(directory, settings)


async def start_on_full_disk(directory: Path, settings: BatchSettings) -> Engine:
    """An engine in whose process no file may grow past a few KB."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    return FakeEngine(directory, settings)


async def start_none(directory: Path, settings: BatchSettings) -> Engine:
    raise EngineStartError("There is no such engine.")


@dataclass(frozen=True)
class Trouble:
    """What happens in an engine.

    Attributes:
        poison: a text with this in it ends the engine.
        kills: it ends the whole process, not the engine alone.
        once: a file that is made by the first death; after it, nothing dies.
        delay_s: before each answer.
        nan: a text with this in it has no usable vectors.
    """

    poison: str | None = None
    kills: bool = False
    once: Path | None = None
    delay_s: float = 0.0
    nan: str | None = None


class TroubledEngine(FakeEngine):
    def __init__(self, directory: Path, settings: BatchSettings, trouble: Trouble) -> None:
        super().__init__(directory, settings)
        self._trouble = trouble
        self._dead = False
        self._prompter = Prompter.load(directory)

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        if self._trouble.delay_s:
            await asyncio.sleep(self._trouble.delay_s)
        if any(self._is_poison(prompt) for prompt in prompts):
            self._die()
        outcomes = await super().embed(prompts, want)
        return [
            NoVectorsError("Its values are NaN.")
            if self._has(self._trouble.nan, prompt)
            else outcome
            for prompt, outcome in zip(prompts, outcomes, strict=True)
        ]

    async def check_health(self) -> None:
        if self._dead:
            raise EngineDeadError("The core died.")
        await super().check_health()

    def _is_poison(self, prompt: Prompt) -> bool:
        return self._has(self._trouble.poison, prompt)

    def _has(self, words: str | None, prompt: Prompt) -> bool:
        return words is not None and words in self._prompter.text_of(prompt.token_ids).text

    def _die(self) -> None:
        if self._trouble.once is not None:
            if self._trouble.once.exists():
                return
            self._trouble.once.touch()
        if self._trouble.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        self._dead = True
        raise EngineDeadError("The core died.")


async def _start(directory: Path, settings: BatchSettings, *, trouble: Trouble) -> Engine:
    return TroubledEngine(directory, settings, trouble)


def troubled(trouble: Trouble) -> StartEngine:
    """A start function of engines in trouble."""
    return partial(_start, trouble=trouble)
