"""How many engines a job has, and what each of them takes."""

import pytest

from serving.cluster.resources import Resources, lacking, resources_of
from serving.settings import BatchSettings


@pytest.mark.parametrize(
    ("settings", "cluster", "wanted"),
    [
        ({}, {"CPU": 8.0}, Resources(1, 0.0, 1.0)),
        ({}, {"CPU": 8.0, "GPU": 4.0}, Resources(4, 1.0, 1.0)),
        ({"gpus_per_engine": 0.5}, {"GPU": 2.0}, Resources(4, 0.5, 1.0)),
        ({"engines": 3, "cpus_per_engine": 2}, {"GPU": 2.0}, Resources(3, 1.0, 2.0)),
        ({"gpus_per_engine": 0}, {"GPU": 2.0}, Resources(1, 0.0, 1.0)),
    ],
)
def test_engines_are_as_many_as_the_cluster_has_gpus_for(
    settings: dict[str, object], cluster: dict[str, float], wanted: Resources
) -> None:
    assert resources_of(BatchSettings.model_validate(settings), cluster) == wanted


def test_engines_on_one_gpu_share_its_memory() -> None:
    assert [Resources(1, gpus, 1).shares for gpus in (0.0, 1.0, 0.5, 0.3)] == [1, 1, 2, 3]


def test_what_a_cluster_lacks_is_said() -> None:
    assert Resources(2, 1, 1).lacking({"GPU": 2, "CPU": 4}) is None
    assert (
        Resources(2, 1, 1).lacking({"GPU": 1, "CPU": 4}) == "The engines want 2 GPUs, and Ray has 1"
    )
    assert "2.5 CPUs" in str(Resources(2, 0, 1).lacking({"CPU": 2}))


def test_replicas_that_want_more_gpus_than_there_are_are_named() -> None:
    def of(gpus: float, replicas: int, cluster: dict[str, float]) -> str | None:
        return lacking("replicas", {"GPU": gpus * replicas}, cluster)

    assert of(0.0, 3, {}) is None
    assert of(0.1, 10, {"GPU": 1.0}) is None
    assert of(1.0, 3, {"GPU": 2.0}) == "The replicas want 3 GPUs, and Ray has 2"
    assert of(0.5, 1, {}) == "The replicas want 0.5 GPUs, and Ray has 0"
    # 0.30000000000000004 of what adds up to 0.3
    assert of(0.1, 3, {"GPU": 0.3}) is None
