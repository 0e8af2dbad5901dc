"""Which models and tasks requests may name, and what each stands for here. Knows names, not requests."""

from dataclasses import dataclass

from serving.errors import TaskError
from serving.http.errors import HttpError, invalid
from serving.service import Lane, Service

PUBLIC_NAME = "jina-embeddings-v4"
PUBLIC_DEFAULT_TASK = "text-matching"


@dataclass(frozen=True, slots=True)
class Choice:
    """What one request is computed with.

    Attributes:
        lane: of the task.
        task: name of the merged checkpoint's task.
        prompt_name: prefix of its texts; None is the checkpoint's default.
    """

    lane: Lane
    task: str
    prompt_name: str | None


class Catalogue:
    """The names of one server."""

    def __init__(self, service: Service, *, model_name: str, default_task: str | None) -> None:
        self._service = service
        self._default_task = default_task or PUBLIC_DEFAULT_TASK
        manifests = [lane.manifest for lane in service.lanes.values()]
        own = [name for manifest in manifests for name in _spellings(manifest.model)]
        self.names: tuple[str, ...] = tuple(
            dict.fromkeys([*_spellings(model_name), PUBLIC_NAME, f"jinaai/{PUBLIC_NAME}", *own])
        )
        self.model_name: str = model_name
        if default_task is not None:
            self._choice(default_task)

    @property
    def public_tasks(self) -> list[str]:
        """The tasks of the public API that are served here."""
        return [
            public
            for task, lane in self._service.lanes.items()
            for public in _public_tasks(task, list(lane.manifest.prompts))
        ]

    def knows(self, model: str) -> bool:
        """Whether requests may give `model`, a name or `NAME:TASK`."""
        name, colon, task = model.partition(":")
        return name in self.names and (not colon or task in self.public_tasks)

    def choose(self, model: str, task: str | None) -> Choice:
        """What `model`, which may be `NAME:TASK`, and `task` stand for; the field `task` wins.

        Raises:
            HttpError: 400 for an unknown model, 422 for a task that is not served.
        """
        if not self.knows(model):
            raise self._unknown_model()
        wanted = task or model.partition(":")[2] or None
        if wanted is None:
            return self._default()
        try:
            return self._choice(wanted)
        except TaskError as error:
            raise invalid("task", str(error), "task_not_served") from error

    def pair(self, model: str, task: str) -> Lane:
        """The lane whose vectors rank documents, by the name of its adapter.

        Raises:
            HttpError: 400 for an unknown model, 422 for a task that is not served.
        """
        if not self.knows(model):
            raise self._unknown_model()
        try:
            return self._service.lane(task)
        except TaskError as error:
            raise invalid("task", str(error), "task_not_served") from error

    def _choice(self, public: str) -> Choice:
        task, _, prompt = public.partition(".")
        lane = self._service.lane(task)
        if prompt:
            lane.prompter.prefix(prompt)
        elif task != PUBLIC_DEFAULT_TASK and len(lane.manifest.prompts) > 1:
            raise TaskError(
                f"The task {task!r} has a side: ask for one of {_public_tasks(task, list(lane.manifest.prompts))}."
            )
        return Choice(lane, task, prompt or None)

    def _default(self) -> Choice:
        try:
            return self._choice(self._default_task)
        except TaskError as error:
            raise invalid(
                "task",
                f"No task was named, and the default, {self._default_task}, is not served here. "
                f"Name one of {self.public_tasks}, in `task` or as `MODEL:TASK`.",
                "task_missing",
            ) from error

    def _unknown_model(self) -> HttpError:
        return HttpError(
            400,
            "INPUT_MODEL_NOT_FOUND",
            f"No such model is served here. Ask for {self.model_name!r}, or for "
            f"'{self.model_name}:TASK' with TASK one of {self.public_tasks}.",
        )


def _spellings(name: str) -> tuple[str, ...]:
    """A model's name with and without its publisher."""
    return (name, name.rpartition("/")[2])


def _public_tasks(task: str, prompts: list[str]) -> list[str]:
    # Both sides of text matching get the same prefix, so the public API knows no sides of it.
    return [task] if task == PUBLIC_DEFAULT_TASK else [f"{task}.{prompt}" for prompt in prompts]
