import pytest

from serving.errors import SettingsError, TaskError
from serving.settings import ClusterSettings, load_cluster_settings
from serving.settings.cluster import Replicas


def settings(**given: object) -> ClusterSettings:
    return load_cluster_settings(given)


@pytest.mark.parametrize(
    ("given", "task", "replicas"),
    [
        ({}, "retrieval", Replicas(1, 1)),
        ({"min_replicas": "2"}, "retrieval", Replicas(2, 2)),
        ({"min_replicas": "2,code=0"}, "code", Replicas(0, 1)),
        ({"min_replicas": "2,code=0"}, "retrieval", Replicas(2, 2)),
        ({"min_replicas": "1", "max_replicas": ["4", "code=8"]}, "code", Replicas(1, 8)),
        ({"min_replicas": "1", "max_replicas": ["4", "code=8"]}, "retrieval", Replicas(1, 4)),
        ({"min_replicas": "retrieval=3"}, "code", Replicas(1, 1)),
    ],
)
def test_each_task_has_its_own_counts(
    given: dict[str, object], task: str, replicas: Replicas
) -> None:
    assert settings(**given).replicas(task) == replicas


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"min_replicas": "many"}, "many"),
        ({"min_replicas": "-1"}, "-1"),
        ({"min_replicas": "code=x"}, "code=x"),
        ({"min_replicas": "3", "max_replicas": "2"}, "max_replicas is 2"),
        ({"max_replicas": "0"}, "max_replicas is 0"),
        ({"min_replicas": "1,code=5", "max_replicas": "4"}, "for code"),
        ({"gpus_per_replica": "2"}, "gpus_per_replica"),
        ({"keys": "keys.json", "ingress_replicas": 2}, "limits_storage"),
        ({"host": "0.0.0.0"}, "keys"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        settings(**given)


def test_several_ingresses_may_share_limits_in_redis() -> None:
    found = settings(keys="keys.json", ingress_replicas=2, limits_storage="redis://localhost")
    assert found.ingress_replicas == 2


def test_counts_for_a_task_that_is_not_served_are_refused() -> None:
    with pytest.raises(TaskError, match="retrievel"):
        settings(min_replicas="retrievel=2").check_tasks(["retrieval"])


def test_they_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_MIN_REPLICAS", "2,code=0")
    assert settings().replicas("code") == Replicas(0, 1)
