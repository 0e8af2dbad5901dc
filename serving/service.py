"""What a server serves: for each task an engine, the queue in front of it, and the path through both.

Knows the Engine protocol and the server's settings; no wire format, no HTTP.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from serving.admission import Admission
from serving.engine.protocol import Engine, TextPrompt
from serving.errors import EngineError, TaskError
from serving.images import ImageLimits
from serving.inputs import Text
from serving.manifest import Manifest
from serving.pipeline import Pipeline
from serving.places import Places
from serving.preparing import NUM_THREADS
from serving.prompts import Prompter
from serving.settings import ServerSettings
from serving.supervisor import EngineState, RestartPolicy, SupervisedEngine
from serving.together import together
from serving.turns import TurnQueue

StartEngine = Callable[[Path], Awaitable[Engine]]
GiveUp = Callable[[str, EngineError], None]


@runtime_checkable
class Watched(Protocol):
    """An engine that knows whether it answers, without asking."""

    @property
    def is_up(self) -> bool:
        """Whether it does."""
        ...


# Steps of the engine that are handed to it ahead: it never waits, and nobody waits long for a turn.
_STEPS_AHEAD = 4


@dataclass(frozen=True, slots=True)
class Lane:
    """One task."""

    engine: Engine
    prompter: Prompter
    turns: TurnQueue
    pipeline: Pipeline
    running_tokens: int
    """Tokens that one engine is given at once."""

    @classmethod
    def around(
        cls, engine: Engine, prompter: Prompter, settings: ServerSettings, preparing: Places
    ) -> Self:
        """The queue and the path in front of `engine`; `preparing` is shared by all lanes."""
        step_tokens = settings.max_batch_tokens
        running_tokens = settings.max_running_tokens or _STEPS_AHEAD * step_tokens
        turns = TurnQueue(
            max_running_tokens=running_tokens,
            admission=Admission(
                max_tokens=settings.max_queued_tokens,
                max_wait_s=settings.max_queue_s,
                free_tokens=running_tokens,
            ),
            max_piece_tokens=step_tokens,
            max_piece_prompts=settings.max_batch_prompts,
        )
        limits = ImageLimits(
            max_bytes=settings.max_image_bytes,
            max_decoded_pixels=settings.max_decoded_pixels,
            max_aspect_ratio=prompter.manifest.image.max_aspect_ratio,
            one_frame=True,
        )
        pipeline = Pipeline(engine, prompter, limits=limits, turns=turns, preparing=preparing)
        return cls(engine, prompter, turns, pipeline, running_tokens)

    @property
    def manifest(self) -> Manifest:
        """What the checkpoint says of itself."""
        return self.prompter.manifest

    @property
    def is_up(self) -> bool:
        """Whether the engine answers, as far as is known; an engine nobody watches is believed."""
        return not isinstance(self.engine, Watched) or self.engine.is_up


class Service:
    """All lanes of one process."""

    def __init__(self) -> None:
        self.lanes: dict[str, Lane] = {}
        self.preparing: Places = Places(NUM_THREADS)
        """Turns at the threads that tokenise."""
        self.on_state: Callable[[str, EngineState], None] | None = None
        """Told every new state of a watched engine, with its task."""

    @classmethod
    def of_engines(
        cls,
        directories: Mapping[str, Path],
        engines: Mapping[str, Engine],
        settings: ServerSettings,
    ) -> Self:
        """Serve with engines that run already, one for each task's directory."""
        service = cls()
        for task, path in directories.items():
            service.lanes[task] = Lane.around(
                engines[task], Prompter.load(path), settings, service.preparing
            )
        return service

    @classmethod
    def supervised(
        cls,
        directories: Mapping[str, Path],
        start: StartEngine,
        settings: ServerSettings,
        *,
        on_give_up: GiveUp,
    ) -> Self:
        """Serve with engines that are started in the background, and again when they die.

        Args:
            directories: of each task.
            start: starts an engine on one; asked for all at once (see `serving.starts`).
            settings: the server's.
            on_give_up: called with a task whose engine does not come up, or does not stay up.

        Raises:
            CheckpointError: a directory is not a merged checkpoint that can be served.
        """
        # Every checkpoint is read before the first engine starts.
        prompters = {task: Prompter.load(path) for task, path in directories.items()}
        service = cls()
        for task, prompter in prompters.items():
            engine = SupervisedEngine(
                partial(start, directories[task]),
                _probe(prompter),
                settings.max_model_tokens or prompter.manifest.max_text_tokens,
                _policy(settings),
                on_give_up=partial(on_give_up, task),
                on_change=partial(service._changed, task),
                name=f"engine of {task}",
            )
            service.lanes[task] = Lane.around(engine, prompter, settings, service.preparing)
            engine.start()
        return service

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order they were given in."""
        return list(self.lanes)

    def lane(self, task: str) -> Lane:
        """The lane of `task`.

        Raises:
            TaskError: it is not served here.
        """
        if task not in self.lanes:
            raise TaskError(
                f"The task {task!r} is not served here; this server has {self.tasks}. "
                "Ask for one of these, or serve a checkpoint of that task too."
            )
        return self.lanes[task]

    async def unready(self) -> dict[str, str]:
        """The tasks whose engines do not answer now, and why."""
        reasons: dict[str, str] = {}
        for task, lane in self.lanes.items():
            try:
                await lane.engine.check_health()
            except EngineError as error:
                reasons[task] = str(error)
        return reasons

    def _changed(self, task: str, state: EngineState) -> None:
        if self.on_state is not None:
            self.on_state(task, state)

    async def close(self) -> None:
        """Fail what is in flight and stop every engine."""
        await together(lane.engine.close() for lane in self.lanes.values())


def _policy(settings: ServerSettings) -> RestartPolicy:
    return RestartPolicy(
        probe_interval_s=settings.probe_interval_s,
        stall_timeout_s=settings.stall_timeout_s,
        max_restarts=settings.max_engine_restarts,
        window_s=settings.engine_restart_window_s,
    )


def _probe(prompter: Prompter) -> TextPrompt:
    """The shortest prompt: the prefix and nothing after it."""
    return prompter.text_prompts([Text("")], prompt_name=None, max_length=1)[0]
