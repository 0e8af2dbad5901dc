"""An `Engine` whose work is done by the replicas of a task, wherever they are.

A batch is one remote call. When its replica dies under it, it goes to another: embedding twice gives the
same vectors. Knows the board, parcels and Ray Serve's handles; neither engines nor HTTP.
"""

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from serving.cluster.board import Board
from serving.cluster.parcel import Failure, PromptParcel, VectorParcel
from serving.deadline import remaining_s
from serving.engine.protocol import ImagePrompt, Outcome, Prompt, Want
from serving.errors import (
    EngineDeadError,
    EngineError,
    EngineStartError,
    EngineStoppedError,
    InputError,
)

_POLL_S = 0.25
_MIN_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 1.0
# What an image counts as while its tokens are unknown here: about a page.
_IMAGE_TOKENS = 768


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call is tried.

    Attributes:
        replica_wait_s: without any replica that answers.
        max_attempts: replicas that may die under it.
        may_sleep: whether a task without a replica is well, because one is started for the next call.
    """

    replica_wait_s: float
    max_attempts: int
    may_sleep: bool


class ReplicaEngine:
    """Calls replicas of one task; for one event loop."""

    def __init__(
        self, handle: DeploymentHandle, board: Board, max_tokens: int, patience: Patience
    ) -> None:
        """Around replicas that may not be there yet.

        Args:
            handle: of the task's deployment; its method `embed` is called.
            board: of the same deployment.
            max_tokens: longest prompt its engines take.
            patience: when to give up.
        """
        self.max_tokens: int = max_tokens
        self.held_tokens: Callable[[], int] = lambda: 0
        """Tokens that wait or run in this process; replicas report them for scaling."""
        self._handle = handle.options(method_name="embed")
        self._board = board
        self._patience = patience
        self._name = uuid.uuid4().hex
        self._numbers = itertools.count()
        self._closed = False

    @property
    def num_replicas(self) -> int:
        """Replicas there are now."""
        return self._board.num_replicas

    @property
    def is_up(self) -> bool:
        """Whether a call would be answered, going by what replicas said lately."""
        return bool(self._board.num_up) or (
            self._patience.may_sleep and not self._board.num_replicas
        )

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        """Embed `prompts`; see `Engine.embed`. Cancelling reaches the replica's engine."""
        if not prompts:
            return []
        num_tokens = sum(map(_num_tokens, prompts))
        if any(isinstance(p, ImagePrompt) and not isinstance(p.source, bytes) for p in prompts):
            packed = await asyncio.to_thread(self._pack, prompts, want)
        else:
            packed = self._pack(prompts, want)
        if isinstance(packed, InputError):
            # Only files are read here, and they come one by one.
            return [packed if len(prompts) == 1 else await self._alone(p, want) for p in prompts]
        started, num_deaths, backoff_s = time.monotonic(), 0, _MIN_BACKOFF_S
        while True:
            answer = await self._call(packed, num_tokens)
            if isinstance(answer, VectorParcel):
                self._board.heard(answer.replica, answer.held_tokens)
                return answer.outcomes()
            match answer.kind:
                case "late":
                    # Whoever set the deadline is about to cancel this.
                    raise EngineError(answer.message)
                case "died":
                    num_deaths += 1
                    if num_deaths >= self._patience.max_attempts:
                        raise EngineDeadError(answer.message)
                case "down":
                    self._board.down(answer.replica)
                    if time.monotonic() - started >= self._patience.replica_wait_s:
                        raise EngineDeadError(answer.message)
            if not self._board.num_up or num_deaths:
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)

    async def check_health(self) -> None:
        """Return if a replica answers, or one would be started; see `Engine.check_health`."""
        self._refuse_when_closed()
        if not self.is_up:
            raise EngineStartError("No replica answers; one is being started.")

    async def close(self) -> None:
        """Take no more calls, and fail those that wait; the replicas are not ours to stop."""
        self._closed = True

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise EngineStoppedError("The engine is closed.")

    def _pack(self, prompts: Sequence[Prompt], want: Want) -> PromptParcel | InputError:
        replicas = max(1, self._board.num_replicas)
        try:
            return PromptParcel.of(prompts, want, self.held_tokens() // replicas)
        except OSError as error:
            return InputError(f"An image's file cannot be read ({error.strerror}).")

    async def _alone(self, prompt: Prompt, want: Want) -> Outcome:
        (outcome,) = await self.embed([prompt], want)
        return outcome

    async def _call(self, parcel: PromptParcel, num_tokens: int) -> VectorParcel | Failure:
        """One try: an answer, or why there is none."""
        self._refuse_when_closed()
        call = f"{self._name}-{next(self._numbers)}"
        # Outside of the context of the HTTP request: Serve gives all calls of one request the same id, and of
        # several that wait for a replica at once it then forgets all but two.
        response = Context().run(
            self._handle.remote,
            parcel,
            call=call,
            num_tokens=num_tokens,
            timeout_s=remaining_s(),
        )
        try:
            return await self._patiently(response)
        except (RayServeException, RayError) as error:
            return Failure("died", f"The replica did not answer ({_name_of(error)}).", "")
        finally:
            self._board.release(call)

    async def _patiently(
        self, response: "DeploymentResponse[VectorParcel | Failure]"
    ) -> VectorParcel | Failure:
        """Wait for `response`, but not for ever for a replica to begin with it."""

        async def answer() -> VectorParcel | Failure:
            found: VectorParcel | Failure = await response
            return found

        waiting = asyncio.create_task(answer())
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=_POLL_S)
                if done:
                    return waiting.result()
                self._refuse_when_closed()
                if self._board.empty_s() >= self._patience.replica_wait_s:
                    raise EngineStartError(
                        f"There has been no replica for {self._patience.replica_wait_s:g} s."
                    )
        finally:
            if not waiting.done():
                waiting.cancel()
                response.cancel()


def _num_tokens(prompt: Prompt) -> int:
    return _IMAGE_TOKENS if isinstance(prompt, ImagePrompt) else len(prompt.token_ids)


def _name_of(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    return type(cause).__name__
