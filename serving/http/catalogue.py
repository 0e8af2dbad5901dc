"""Which models and tasks requests may name, and what each stands for here. Knows names, not requests."""

from dataclasses import dataclass

from serving.errors import TaskError
from serving.http.errors import HttpError, invalid
from serving.service import Lane, Service

PUBLIC_NAME = "jina-embeddings-v4"
PUBLIC_DEFAULT_TASK = "text-matching"
PAIR_DEFAULT_TASK = "retrieval"

# In the public API these always come with the side that a text is on.
_SIDED_TASKS = ("retrieval", "code")


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
        pair_task = PAIR_DEFAULT_TASK if default_task is None else self._split(default_task)[0]
        only = next(iter(service.lanes)) if len(service.lanes) == 1 else None
        self._default_pair_task = pair_task if pair_task in service.lanes else only
        manifests = [lane.manifest for lane in service.lanes.values()]
        own = [name for manifest in manifests for name in _spellings(manifest.model)]
        self.names: tuple[str, ...] = tuple(
            dict.fromkeys([*_spellings(model_name), PUBLIC_NAME, f"jinaai/{PUBLIC_NAME}", *own])
        )
        self.model_name: str = model_name
        self.public_tasks: list[str] = public_tasks(service)
        """The tasks that requests for vectors may name here, as the public API spells them."""
        if default_task is not None:
            self._choice(default_task)

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
        wanted = (model.partition(":")[2] or None) if task is None else task
        if wanted is None:
            return self._default()
        if wanted not in self.public_tasks:
            raise _not_served(self.public_tasks)
        return self._choice(wanted)

    def pair(self, model: str, task: str | None) -> Lane:
        """The lane whose vectors rank documents: the adapter's in `task`, in `model`, or the default.

        Raises:
            HttpError: 400 for an unknown model, 422 for a task that is not served, or where none is
                named and there is no default.
        """
        lanes = self._service.lanes
        name, _, suffix = model.partition(":")
        if not self.knows(model) and not (name in self.names and suffix in lanes):
            raise self._unknown_model()
        if task is None:
            task = self._split(suffix)[0] if suffix else self._default_pair_task
        if task is None:
            raise invalid(
                "task",
                "No task was named, and no default is served here. "
                f"Name one of {self._service.tasks}, in `task` or as `MODEL:TASK`.",
                "task_missing",
            )
        if task not in lanes:
            raise _not_served(self._service.tasks)
        return lanes[task]

    def _split(self, public: str) -> tuple[str, str]:
        """The adapter and the side in the name of a task; the side may be empty."""
        # An adapter's own name may have dots in it.
        if public in self._service.lanes or "." not in public:
            return public, ""
        task, _, prompt = public.rpartition(".")
        return task, prompt

    def _choice(self, public: str) -> Choice:
        task, prompt = self._split(public)
        lane = self._service.lane(task)
        if prompt:
            lane.prompter.prefix(prompt)
        elif task in _SIDED_TASKS and len(lane.manifest.prompts) > 1:
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


def public_tasks(service: Service) -> list[str]:
    """The tasks of `service` as requests for vectors name them."""
    return [
        public
        for task, lane in service.lanes.items()
        for public in _public_tasks(task, list(lane.manifest.prompts))
    ]


def _not_served(tasks: list[str]) -> HttpError:
    return invalid("task", f"This task is not served here. Name one of {tasks}.", "task_not_served")


def _spellings(name: str) -> tuple[str, ...]:
    """A model's name with and without its publisher."""
    return (name, name.rpartition("/")[2])


def _public_tasks(task: str, prompts: list[str]) -> list[str]:
    # Both sides of text matching get the same prefix, so the public API knows no sides of it.
    if task == PUBLIC_DEFAULT_TASK:
        return [task]
    sides = [f"{task}.{prompt}" for prompt in prompts]
    return sides if task in _SIDED_TASKS else [task, *sides]
