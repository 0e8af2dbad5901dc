"""How many engines a batch job has, and what of the cluster an engine takes. Knows no Ray but its names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from serving.settings.batch import BatchSettings


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
        for name, wanted in (
            ("GPU", self.engines * self.gpus),
            ("CPU", self.engines * self.cpus + self.reading_cpus),
        ):
            if cluster.get(name, 0.0) < wanted:
                return (
                    f"The engines want {wanted:g} {name}s, and Ray has {cluster.get(name, 0.0):g}"
                )
        return None


def engines_per_gpu(gpus: float) -> int:
    """Engines on one GPU, where each takes `gpus` of it; 1 where each takes several, or none."""
    return max(1, math.floor(1 / gpus)) if gpus else 1


def lacking_gpus(gpus: float, replicas: int, cluster: Mapping[str, float]) -> str | None:
    """What `cluster` has too little of for as many replicas, in words."""
    have, wanted = cluster.get("GPU", 0.0), gpus * replicas
    # Ray counts in steps of 0.0001; a sum of fractions may be off by less.
    if wanted <= have + 1e-4:
        return None
    return f"The replicas want {wanted:g} GPUs, and Ray has {have:g}"


def resources_of(settings: BatchSettings, cluster: Mapping[str, float]) -> Resources:
    """What a job of `settings` takes of `cluster`, which maps Ray's names to amounts."""
    num_gpus = cluster.get("GPU", 0.0)
    gpus = settings.gpus_per_engine
    if gpus is None:
        gpus = 1.0 if num_gpus else 0.0
    engines = settings.engines or (max(1, math.floor(num_gpus / gpus)) if gpus else 1)
    return Resources(engines, gpus, settings.cpus_per_engine)
