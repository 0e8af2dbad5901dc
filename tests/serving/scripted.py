"""An engine that does as a test says, watched by a `SupervisedEngine`."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat

import torch

from serving.engine.protocol import Engine, Outcome, Pooled, Prompt, TextPrompt, Want
from serving.errors import (
    EngineDeadError,
    EngineError,
    InputError,
    NoVectorsError,
)
from serving.supervisor import EngineState, RestartPolicy, SupervisedEngine

PROBE = TextPrompt((0,))
TEXT = TextPrompt((7, 8))
SINGLE = Want(single=True)
POLICY = RestartPolicy(probe_interval_s=0.02, stall_timeout_s=0.3, max_restarts=1, window_s=900)


class ScriptedEngine:
    """Answers with the prompt's first token id until it is told to hang or to die."""

    max_tokens = 16

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.is_dead = False
        self.says_so = True
        self.ignores_cancelling = False
        self.probe_value = 1.0
        self.num_answered = 0
        self.is_useless = False
        self.num_probes = 0
        self.num_cancelled = 0
        self.is_closed = False

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        self.num_probes += prompts[0] is PROBE
        await self._wait()
        if self.is_dead:
            raise EngineDeadError("The core died.")
        self.num_answered += len(prompts)
        if self.is_useless:
            return [NoVectorsError("Its values are NaN.")] * len(prompts)
        return [self._outcome(prompt) for prompt in prompts]

    async def _wait(self) -> None:
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            if not self.ignores_cancelling:
                raise
            await self.answers.wait()

    def _outcome(self, prompt: Prompt) -> Outcome:
        if prompt.token_ids == (404,):
            return InputError("This input is bad.")
        value = self.probe_value if prompt is PROBE else float(prompt.token_ids[0])
        return Pooled(prompt.token_ids, torch.tensor([value]), None)

    async def check_health(self) -> None:
        if self.is_dead and self.says_so:
            raise EngineDeadError("The core died.")

    async def close(self) -> None:
        self.is_closed = True
        self.answers.set()

    def die(self) -> None:
        self.is_dead = True
        self.answers.set()


@dataclass
class Stage:
    """What a test sees of one supervised engine."""

    engine: SupervisedEngine
    started: list[ScriptedEngine]
    states: list[EngineState] = field(default_factory=list)
    given_up: list[EngineError] = field(default_factory=list)

    @property
    def inner(self) -> ScriptedEngine:
        return self.started[-1]

    async def until(self, state: EngineState) -> None:
        while self.engine.state is not state:
            await asyncio.sleep(0.005)

    async def embed(self, *prompts: Prompt) -> list[Outcome]:
        return await self.engine.embed(prompts or (TEXT,), SINGLE)

    async def in_flight(self) -> "asyncio.Task[list[Outcome]]":
        """A call that the engine holds."""
        self.inner.answers.clear()
        call = asyncio.create_task(self.embed())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return call


Starting = Callable[[], Awaitable[Engine]]


@asynccontextmanager
async def stage(
    policy: RestartPolicy = POLICY,
    failures: Sequence[Exception | None] = (),
    clock: Callable[[], float] | None = None,
):
    started: list[ScriptedEngine] = []
    outcomes: Iterator[Exception | None] = chain(failures, repeat(None))

    async def start() -> Engine:
        failure = next(outcomes)
        if failure is not None:
            raise failure
        started.append(ScriptedEngine())
        return started[-1]

    states: list[EngineState] = []
    given_up: list[EngineError] = []
    engine = SupervisedEngine(
        start,
        PROBE,
        16,
        policy,
        on_give_up=given_up.append,
        on_change=states.append,
        **({} if clock is None else {"clock": clock}),
    )
    engine.start()
    async with asyncio.timeout(20):
        yield Stage(engine, started, states, given_up)
        await engine.close()
    assert all(inner.is_closed for inner in started)
