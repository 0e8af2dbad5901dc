import math
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
from ray.serve.schema import ServeDeploySchema

from serving.cluster.app import APPLICATION, INGRESS, build
from serving.cluster.front import front_environment
from serving.errors import SettingsError
from serving.manifest import find_tasks
from serving.settings import ClusterSettings, load_batch_settings, load_cluster_settings
from tests.deploy.files import every_value, manifest
from tests.deploy.named import parse_command

SERVICE = manifest("rayservice.yaml")["spec"]
SERVE = yaml.safe_load(SERVICE["serveConfigV2"])
(ONLINE,) = SERVE["applications"]
GROUPS = {group["groupName"]: group for group in SERVICE["rayClusterConfig"]["workerGroupSpecs"]}
HEAD = SERVICE["rayClusterConfig"]["headGroupSpec"]
JOB = manifest("rayjob.yaml")["spec"]


@pytest.fixture
def with_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that the Pods have from a Secret."""
    monkeypatch.setenv("POLYVEC_LIMITS_STORAGE", "redis://:word@redis:6379/0")


@pytest.fixture
def settings(with_limits: None) -> ClusterSettings:
    return load_cluster_settings({k: v for k, v in ONLINE["args"].items() if k != "models"})


def environment(group: Mapping[str, Any]) -> dict[str, str | None]:
    """Values of a group's variables; None where a Secret has them."""
    (container,) = group["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def test_ray_takes_the_configuration() -> None:
    config = ServeDeploySchema.model_validate(SERVE)
    assert config.applications[0].name == APPLICATION
    assert ONLINE["route_prefix"] == "/"
    assert config.proxy_location.value == "EveryNode"
    assert (config.http_options.host, config.http_options.port) == ("0.0.0.0", 8000)


def test_idle_connections_are_closed_when_the_settings_say(settings: ClusterSettings) -> None:
    assert SERVE["http_options"]["keep_alive_timeout_s"] == settings.keep_alive_s


def test_the_application_is_built_with_these_arguments(
    with_limits: None, merged_float32: Path
) -> None:
    module, _, name = ONLINE["import_path"].partition(":")
    assert (module, name) == (build.__module__, build.__name__)
    assert build(ONLINE["args"] | {"models": str(merged_float32)}) is not None


def test_a_misspelt_argument_of_the_application_is_refused(
    with_limits: None, merged_float32: Path
) -> None:
    with pytest.raises(SettingsError, match="max_replica"):
        build(ONLINE["args"] | {"models": str(merged_float32), "max_replica": "8"})


def test_deployments_that_are_changed_are_those_of_the_application(merged_float32: Path) -> None:
    named = [deployment["name"] for deployment in ONLINE["deployments"]]
    assert sorted(named) == sorted([INGRESS, *find_tasks(merged_float32, None)])


def test_an_update_starts_a_replica_before_it_stops_one() -> None:
    assert all(deployment["max_surge_percent"] > 0 for deployment in ONLINE["deployments"])


def test_what_the_ingress_is_given_here_is_what_the_settings_say(settings: ClusterSettings) -> None:
    (options,) = every_value(ONLINE["deployments"], "ray_actor_options")
    assert options["num_cpus"] == settings.cpus_per_ingress


@pytest.mark.parametrize("group", [HEAD, *GROUPS.values()], ids=["head", *GROUPS])
def test_pods_have_the_environment_that_the_front_needs(
    group: Mapping[str, Any], settings: ClusterSettings
) -> None:
    # How many connections there may be depends on the machine: here on the Pod's limit of files, which KubeRay raises.
    wanted = front_environment(settings) | {
        "RAY_SERVE_HAPROXY_MAXCONN": str(settings.max_connections)
    }
    assert environment(group) == {**wanted, "POLYVEC_LIMITS_STORAGE": None}
    assert settings.max_connections * 2 + 5000 < 65_536


@pytest.mark.parametrize("group", GROUPS.values(), ids=list(GROUPS))
def test_pods_end_later_than_they_stop_taking_requests(group: Mapping[str, Any]) -> None:
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    _, wait_s = container["lifecycle"]["preStop"]["exec"]["command"]
    assert int(wait_s) < pod["terminationGracePeriodSeconds"]


def test_an_old_cluster_lives_as_long_as_a_request_may(settings: ClusterSettings) -> None:
    assert SERVICE["rayClusterDeletionDelaySeconds"] > settings.request_timeout_s


def test_every_least_number_of_replicas_has_its_place(settings: ClusterSettings) -> None:
    ingress, gpu = GROUPS["ingress"], GROUPS["gpu"]
    assert HEAD["resources"] == {"CPU": "0"}
    surge = math.ceil(settings.ingress_replicas / 2)
    assert ingress["minReplicas"] >= settings.ingress_replicas
    assert ingress["maxReplicas"] >= settings.ingress_replicas + surge
    assert ingress["resources"] == {"CPU": f"{settings.cpus_per_ingress:g}", "ingress": "1"}
    (options,) = every_value(ONLINE["deployments"], "ray_actor_options")
    assert options["resources"] == {"ingress": 1}
    assert settings.gpus_per_replica is not None
    on_a_card = int(1 / settings.gpus_per_replica)
    assert gpu["resources"] == {"CPU": f"{on_a_card * settings.cpus_per_replica:g}", "GPU": "1"}
    tasks = [d["name"] for d in ONLINE["deployments"] if d["name"] != INGRESS]
    least = sum(settings.replicas(task).least for task in tasks)
    most = sum(settings.replicas(task).most for task in tasks)
    assert gpu["minReplicas"] >= math.ceil(least / on_a_card)
    assert gpu["maxReplicas"] > math.ceil(most / on_a_card)


@pytest.mark.parametrize("kind", ["online", "batch"])
def test_pods_with_a_gpu_have_it_for_kubernetes_and_for_ray(kind: str) -> None:
    groups = GROUPS.values() if kind == "online" else JOB["rayClusterSpec"]["workerGroupSpecs"]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        limit = container["resources"]["limits"].get("nvidia.com/gpu", 0)
        assert int(group["resources"].get("GPU", 0)) == limit


def test_keys_are_mounted_where_they_are_looked_for(settings: ClusterSettings) -> None:
    assert settings.keys is not None
    (container,) = GROUPS["ingress"]["template"]["spec"]["containers"]
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == "keys")
    assert Path(mount["mountPath"]) == settings.keys.parent
    # A file that is mounted by itself does not change when its Secret does.
    assert "subPath" not in mount


@pytest.mark.parametrize(
    "cluster", [SERVICE["rayClusterConfig"], JOB["rayClusterSpec"]], ids=["online", "batch"]
)
def test_manifests_follow_the_installed_ray(cluster: Mapping[str, Any]) -> None:
    assert cluster["rayVersion"] == ray.__version__
    # `ray start` asks for no token by itself in this release; told so, KubeRay makes one and hands it out.
    assert cluster["authOptions"] == {"mode": "token"}
    ports = {probe["port"] for probe in every_value(cluster, "httpGet")}
    assert ports <= {DEFAULT_DASHBOARD_AGENT_LISTEN_PORT, SERVE["http_options"]["port"]}


def test_the_jobs_command_is_one_of_polyvec() -> None:
    words = shlex.split(JOB["entrypoint"])
    given = parse_command(words)
    settings = load_batch_settings(
        {
            name: value
            for name, value in given.items()
            if value is not None and name not in {"source", "model", "output", "task"}
        }
    )
    assert settings.ray_address == "auto"
    (group,) = JOB["rayClusterSpec"]["workerGroupSpecs"]
    assert settings.engines is not None
    assert settings.gpus_per_engine is not None
    gpus = int(group["resources"]["GPU"]) * group["replicas"]
    assert settings.engines * settings.gpus_per_engine == gpus
    # What is not an engine's reads.
    assert settings.engines * settings.cpus_per_engine < 8 * group["replicas"]


def test_the_jobs_places_are_mounted_on_every_node() -> None:
    given = parse_command(shlex.split(JOB["entrypoint"]))
    cluster = JOB["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        mounts = {m["mountPath"]: m.get("readOnly", False) for m in container["volumeMounts"]}
        for name, may_write in (("source", False), ("model", False), ("output", True)):
            (mount,) = (m for m in mounts if os.path.commonpath([m, given[name]]) == m)
            assert not (may_write and mounts[mount])
