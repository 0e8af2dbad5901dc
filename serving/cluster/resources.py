"""How many engines a batch job has, and what of the cluster an engine takes. Knows no Ray but its names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from serving.settings.batch import BatchSettings

# Ray counts in these; a sum of fractions is off by less.
_STEP = 1e-4


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job takes.

    Attributes:
        engines: side by side.
        gpus: of each.
        cpus: of each.
    """

    engines: int
    gpus: float
    cpus: float

    @property
    def shares(self) -> int:
        """Engines on one GPU."""
        return engines_per_gpu(self.gpus)

    @property
    def reading_cpus(self) -> float:
        """CPUs of each task that reads; never an engine's: Ray Data makes one stage of two that take the same."""
        return 0.25 if self.cpus == 0.5 else 0.5

    def lacking(self, cluster: Mapping[str, float]) -> str | None:
        """What the cluster has too little of now, in words."""
        wanted = {
            "GPU": self.engines * self.gpus,
            "CPU": self.engines * self.cpus + self.reading_cpus,
        }
        return lacking("engines", wanted, cluster)


def lacking(who: str, wanted: Mapping[str, float], cluster: Mapping[str, float]) -> str | None:
    """The first of what is `wanted` that `cluster` has too little of, in words; both map Ray's names to amounts."""
    for name, amount in wanted.items():
        have = cluster.get(name, 0.0)
        if amount > have + _STEP:
            return f"The {who} want {amount:g} {name}s, and Ray has {have:g}"
    return None


def engines_per_gpu(gpus: float) -> int:
    """Engines on one GPU, where each takes `gpus` of it; 1 where each takes several, or none."""
    return max(1, math.floor(1 / gpus)) if gpus else 1


def resources_of(settings: BatchSettings, cluster: Mapping[str, float]) -> Resources:
    """What a job of `settings` takes of `cluster`, which maps Ray's names to amounts."""
    num_gpus = cluster.get("GPU", 0.0)
    gpus = settings.gpus_per_engine
    if gpus is None:
        gpus = 1.0 if num_gpus else 0.0
    engines = settings.engines or (max(1, math.floor(num_gpus / gpus)) if gpus else 1)
    return Resources(engines, gpus, settings.cpus_per_engine)
