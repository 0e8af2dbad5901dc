"""One replica of a task: an engine that is kept up, in a process of its own.

Ray Serve starts, asks and stops it; ingresses call it with parcels. Knows the engine's supervision; no
HTTP, and nothing of who else there is.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from ray import serve

from serving.cluster.parcel import Failure, PromptParcel, VectorParcel
from serving.cluster.scaling import QUEUED_TOKENS
from serving.engine.protocol import Engine
from serving.errors import EngineDeadError, EngineError, EngineStoppedError
from serving.manifest import find_tasks
from serving.service import Service
from serving.settings import ClusterSettings, EngineSettings
from serving.starts import Starts
from serving.supervisor import EngineState, SupervisedEngine

StartEngine = Callable[[Path, EngineSettings, int], Awaitable[Engine]]
"""Starts an engine on a checkpoint, as one of so many that share an accelerator."""

_POLL_S = 0.1
# What an ingress said is waiting counts for this long; it says so with every call.
_REPORT_S = 5.0


@dataclass(frozen=True, slots=True)
class Post:
    """What a replica is of.

    Attributes:
        models: what `polyvec merge` wrote.
        task: one of its tasks.
        revision: changes with the checkpoint, so that replicas are replaced when it does.
        shares: engines that share an accelerator.
    """

    models: Path
    task: str
    revision: str
    shares: int


class Replica:
    """An engine behind Ray Serve."""

    async def __init__(  # type: ignore[misc] # Ray Serve awaits it
        self, post: Post, settings: ClusterSettings, start: StartEngine
    ) -> None:
        """Start the engine, and return when it answers.

        Raises:
            PolyvecError: the checkpoint cannot be served, or the engine did not come up.
        """
        torch.set_num_threads(1)
        self._name: str = serve.get_replica_context().replica_id.unique_id
        self._held_tokens = 0
        self._reports: dict[str, tuple[float, int]] = {}
        self._given_up: EngineError | None = None
        starts = Starts(
            partial(_start, start, settings, post.shares),
            may_overlap=lambda: True,
            timeout_s=settings.engine_start_timeout_s,
        )
        starts.allow()
        self._service = Service.supervised(
            find_tasks(post.models, [post.task]),
            starts.start,
            settings,
            on_give_up=self._give_up,
        )
        engine = self._service.lane(post.task).engine
        assert isinstance(engine, SupervisedEngine)
        self._engine = engine
        while self._engine.state is EngineState.STARTING:
            await asyncio.sleep(_POLL_S)
        self.check_health()

    async def embed(
        self, parcel: PromptParcel, *, call: str, num_tokens: int, timeout_s: float | None
    ) -> VectorParcel | Failure:
        """Embed a batch.

        Args:
            parcel: what to embed.
            call: the sender's name, a dash, and its number of the call.
            num_tokens: of the batch.
            timeout_s: until the sender's deadline; None is no deadline.
        """
        self._reports[call.rpartition("-")[0]] = (time.monotonic(), parcel.held_tokens)
        if self._engine.state not in (EngineState.READY, EngineState.UNRESPONSIVE):
            return Failure("down", "The engine is being started again.", self._name)
        self._held_tokens += num_tokens
        try:
            async with asyncio.timeout(timeout_s):
                outcomes = await self._engine.embed(parcel.prompts(), parcel.want)
        except TimeoutError:
            return Failure("late", "The answer was not ready in time.", self._name)
        except (EngineDeadError, EngineStoppedError) as error:
            return Failure("died", str(error), self._name)
        except EngineError as error:
            return Failure("down", str(error), self._name)
        finally:
            self._held_tokens -= num_tokens
        return VectorParcel.of(outcomes, replica=self._name, held_tokens=self._held_tokens)

    def check_health(self) -> None:
        """Return unless the engine was given up; called by Ray Serve, which then replaces the replica.

        Raises:
            EngineError: it was.
        """
        if self._given_up is not None:
            raise self._given_up

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Tokens that wait for this replica or run in it; called by Ray Serve."""
        now = time.monotonic()
        self._reports = {
            sender: (at, tokens)
            for sender, (at, tokens) in self._reports.items()
            if now - at < _REPORT_S
        }
        reported = sum(tokens for _, tokens in self._reports.values())
        return {QUEUED_TOKENS: float(max(self._held_tokens, reported))}

    async def __del__(self) -> None:
        """Stop the engine; awaited by Ray Serve when what was accepted has been answered."""
        await self._service.close()

    def _give_up(self, task: str, error: EngineError) -> None:
        self._given_up = type(error)(f"The engine of {task} is given up: {error}")


async def _start(
    start: StartEngine, settings: ClusterSettings, shares: int, directory: Path
) -> Engine:
    return await start(directory, settings, shares)
