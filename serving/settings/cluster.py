"""How a server is spread over a cluster: replicas, their resources, and when there are more or fewer of them.

A superset of the server's settings; every default once. It does not know Ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from serving.errors import TaskError
from serving.settings.engine import MIB, PREFIX, Count, Seconds
from serving.settings.server import ServerSettings, split_list


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many replicas a task may have; `least` 0 lets it scale to zero."""

    least: int
    most: int


def _check_counts(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        _, _, count = value.rpartition("=")
        if not (count.isascii() and count.isdigit()):
            raise ValueError(f"{value!r} is neither a count nor TASK=COUNT")
    return values


Counts = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(split_list), AfterValidator(_check_counts)
]


class ClusterSettings(ServerSettings):
    """Settings of `polyvec serve --cluster`, frozen; unset fields come from `POLYVEC_*` in the environment."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, use_attribute_docstrings=True
    )

    ray_address: str | None = None
    """Ray cluster to serve on, as `auto`; None is `RAY_ADDRESS`, or Ray is started on this machine."""

    min_replicas: Counts = ("1",)
    """Least replicas of each task: a count, or TASK=COUNT for some, with commas between; 0 lets a task scale
    to zero."""

    max_replicas: Counts = ()
    """Most replicas of each task, written the same way; none is as many as the least, but at least one."""

    target_queued_tokens: Count | None = None
    """Tokens waiting or running for each replica, above which replicas are added and below which they are
    removed; None is two of the engine's steps (`max_batch_tokens`)."""

    upscale_delay_s: Annotated[float, Field(ge=0)] = 10.0
    """Time that more replicas must have been wanted before they are started."""

    downscale_delay_s: Annotated[float, Field(ge=0)] = 300.0
    """Time that fewer must have been wanted before some are drained and stopped."""

    gpus_per_replica: Annotated[float, Field(ge=0, le=1)] | None = None
    """Part of a GPU for each replica; None is one, or an even share where the cluster has fewer GPUs than
    tasks, and none where it has no GPU."""

    cpus_per_replica: Annotated[float, Field(gt=0)] = 1.0
    """CPUs that Ray sets aside for each replica."""

    ingress_replicas: Count = 1
    """Processes that answer HTTP; with two, one can die without a request failing."""

    cpus_per_ingress: Annotated[float, Field(gt=0)] = 1.0
    """CPUs that Ray sets aside for each of them."""

    front_buffer_bytes: Count = MIB
    """Largest request that is sent to another ingress when the first dies under it; memory for each
    connection in use."""

    replica_wait_s: Seconds = 180.0
    """Time that a call waits for a replica where there is none, such as while a task scales up from zero; then
    503."""

    max_attempts: Count = 3
    """Replicas that a call is tried on when one of them dies under it."""

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        storage = self.limits_storage.get_secret_value()
        if self.keys is not None and self.ingress_replicas > 1 and storage.startswith("memory"):
            raise ValueError(
                f"{self.ingress_replicas} ingress_replicas would each count the limits of keys for themselves. "
                "Pass limits_storage (POLYVEC_LIMITS_STORAGE) a redis:// URL."
            )
        return self

    @model_validator(mode="after")
    def _check_replicas(self) -> Self:
        for task in {value.rpartition("=")[0] for value in self.min_replicas + self.max_replicas}:
            least, most = _count(self.min_replicas, task), _count(self.max_replicas, task)
            if least is not None and most is not None and not max(1, least) <= most:
                raise ValueError(
                    f"max_replicas is {most} for {task or 'every task'}, where min_replicas is {least}. "
                    "It must be at least that, and at least 1."
                )
        return self

    def check_tasks(self, tasks: Sequence[str]) -> None:
        """Refuse counts of replicas for tasks that are not served.

        Raises:
            TaskError: there are some.
        """
        named = {value.rpartition("=")[0] for value in self.min_replicas + self.max_replicas}
        if unknown := sorted(named - {""} - set(tasks)):
            raise TaskError(
                f"min_replicas or max_replicas names {unknown}, and the tasks are {list(tasks)}. "
                "Name one of these."
            )

    def replicas(self, task: str) -> Replicas:
        """How many replicas `task` may have."""
        least = _count(self.min_replicas, task)
        least = 1 if least is None else least
        most = _count(self.max_replicas, task)
        return Replicas(least, max(1, least) if most is None else max(1, least, most))


def _count(values: tuple[str, ...], task: str) -> int | None:
    """What is said of `task`, or else of all."""
    counts = {name: int(count) for name, _, count in (value.rpartition("=") for value in values)}
    return counts.get(task, counts.get(""))
