import copy
from collections.abc import Mapping
from typing import Any

import kubernetes_validate
import pytest
from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS
from ray.serve._private.haproxy import HAProxyConfig

from tests.deploy.files import (
    MANIFESTS,
    ROOT,
    RUNBOOK,
    PodPlace,
    documents,
    every_value,
    manifest,
    pods,
)
from tests.deploy.kuberay import complaints

NAMESPACE = "polyvec"
OBJECTS = [(path.name, document) for path in MANIFESTS for document in documents(path)]
PODS = pods()
POLYVEC_PODS = [pod for pod in PODS if "/polyvec:" in pod.containers[0]["image"]]


def name_of(pod: PodPlace) -> str:
    return pod.name


def of_kind(kind: str) -> list[Mapping[str, Any]]:
    return [document for _, document in OBJECTS if document["kind"] == kind]


def complaints_about(document: Mapping[str, Any]) -> list[str]:
    """What a validator says against an object."""
    if document["apiVersion"].startswith("ray.io/"):
        return complaints(document)
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error)]
    return []


def test_there_are_manifests_and_pods_to_look_at() -> None:
    assert {kind for _, d in OBJECTS for kind in [d["kind"]]} >= {
        "RayService",
        "RayJob",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "StatefulSet",
        "Secret",
    }
    assert len(PODS) == 7
    assert len(POLYVEC_PODS) == 6


@pytest.mark.parametrize(
    "document",
    [d for _, d in OBJECTS],
    ids=[f"{f}:{d['metadata']['name']}:{d['kind']}" for f, d in OBJECTS],
)
def test_every_object_is_what_its_schema_says(document: Mapping[str, Any]) -> None:
    assert not complaints_about(document)
    if document["kind"] != "Namespace":
        assert document["metadata"]["namespace"] == NAMESPACE


@pytest.mark.parametrize("pod", PODS, ids=name_of)
def test_every_pod_inside_another_object_is_what_kubernetes_takes(pod: PodPlace) -> None:
    wrapped = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod", "labels": dict(pod.labels)},
        "spec": pod.spec,
    }
    assert not complaints_about(wrapped)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["servConfigV2"], "applications: []"),
        (["upgradeStrategy", "type"], "Rolling"),
        (["rayClusterConfig", "headGroupSpec"], None),
        (["rayClusterConfig", "rayVersion"], "2.51.0"),
        (["rayClusterConfig", "workerGroupSpecs", 0, "maxReplicas"], "3"),
        (["rayClusterConfig", "workerGroupSpecs", 0, "replicas"], 9),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, list) else "",
)
def test_a_wrong_field_of_kuberay_is_found(path: list[str | int], value: object) -> None:
    service = copy.deepcopy(manifest("rayservice.yaml"))
    assert not complaints(service)
    node = service["spec"]
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    assert complaints(service)


def test_a_wrong_field_of_kubernetes_is_found() -> None:
    budget = copy.deepcopy(documents(ROOT / "deploy/kubernetes/poddisruptionbudget.yaml")[0])
    budget["spec"]["minAvailble"] = 1
    assert complaints_about(budget)


@pytest.mark.parametrize("pod", PODS, ids=name_of)
def test_pods_pass_the_restricted_standard(pod: PodPlace) -> None:
    context = pod.spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()
    assert not list(every_value(pod.spec.get("volumes", []), "hostPath"))
    for container in pod.containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_autoscalers_container_is_locked_as_the_others_are() -> None:
    options = manifest("rayservice.yaml")["spec"]["rayClusterConfig"]["autoscalerOptions"]
    assert options["securityContext"] == PODS[0].containers[0]["securityContext"]
    head = manifest("rayservice.yaml")["spec"]["rayClusterConfig"]["headGroupSpec"]
    volumes = {volume["name"] for volume in head["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in options["volumeMounts"]} <= volumes


@pytest.mark.parametrize("pod", PODS, ids=name_of)
def test_only_the_head_that_scales_has_a_token_of_kubernetes(pod: PodPlace) -> None:
    scales = pod.labels.get("polyvec-role") == "head" and pod.labels["polyvec-app"] == "online"
    assert pod.spec["automountServiceAccountToken"] is scales


@pytest.mark.parametrize("pod", PODS, ids=name_of)
def test_no_service_becomes_a_variable_that_looks_like_a_setting(pod: PodPlace) -> None:
    # A Service named polyvec-redis would be POLYVEC_REDIS_PORT, which is refused as an unknown setting.
    assert pod.spec["enableServiceLinks"] is False


@pytest.mark.parametrize("pod", PODS, ids=name_of)
def test_every_container_says_what_memory_and_cpu_it_takes(pod: PodPlace) -> None:
    for container in pod.containers:
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("pod", PODS, ids=name_of)
def test_everything_mounted_is_a_volume_of_the_pod_and_the_reverse(pod: PodPlace) -> None:
    volumes = {volume["name"] for volume in pod.spec.get("volumes", ())} or {"data"}
    for container in pod.containers:
        mounts = [mount["name"] for mount in container["volumeMounts"]]
        assert set(mounts) <= volumes
        assert len(mounts) == len(set(mounts))
    # The autoscaler's are a part of them.
    assert {m["name"] for c in pod.containers for m in c["volumeMounts"]} == volumes


@pytest.mark.parametrize(
    "pod", [p for p in POLYVEC_PODS if len(p.spec["volumes"]) > 1], ids=name_of
)
def test_what_ray_and_vllm_write_to_is_writable_and_models_are_not(pod: PodPlace) -> None:
    mounts = {mount["mountPath"]: mount for mount in pod.containers[0]["volumeMounts"]}
    for path in ("/tmp", "/dev/shm", "/home/polyvec"):
        assert not mounts[path].get("readOnly")
    assert mounts["/models"]["readOnly"] is True
    (shm,) = (v for v in pod.spec["volumes"] if v["name"] == mounts["/dev/shm"]["name"])
    assert shm["emptyDir"]["medium"] == "Memory"
    assert shm["emptyDir"]["sizeLimit"]


def test_what_is_referred_to_exists() -> None:
    secrets = {s["metadata"]["name"]: s["stringData"].keys() for s in of_kind("Secret")}
    claims = {claim["metadata"]["name"] for claim in of_kind("PersistentVolumeClaim")}
    everything = [document for _, document in OBJECTS]
    references = list(every_value(everything, "secretKeyRef"))
    assert references
    for reference in references:
        assert reference["key"] in secrets[reference["name"]]
    for name in every_value(everything, "secretName"):
        # The certificate of the ingress controller is its own affair.
        assert name in {*secrets, "polyvec-tls"}
    assert set(every_value(everything, "claimName")) == claims


def test_the_example_of_secrets_holds_none() -> None:
    for secret in of_kind("Secret"):
        for value in secret["stringData"].values():
            assert "REPLACE" in value or '"keys": []' in value


@pytest.mark.parametrize("kind", ["PodDisruptionBudget", "NetworkPolicy", "Service"])
def test_what_is_selected_are_labels_of_pods(kind: str) -> None:
    labels = [dict(pod.labels) for pod in PODS]
    selectors = [
        *every_value([d["spec"] for d in of_kind(kind)], "podSelector"),
        *every_value([d["spec"] for d in of_kind("PodDisruptionBudget")], "selector"),
    ]
    ours = [s for s in selectors if "k8s-app" not in s.get("matchLabels", {})]
    assert ours
    for selector in ours:
        assert any(selects(selector, pod) for pod in labels), selector


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    among = selector.get("matchExpressions", ())
    assert all(expression["operator"] == "In" for expression in among)
    return wanted.items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in among
    )


def test_budgets_say_what_kubernetes_takes_for_pods_of_an_operator() -> None:
    budgets = of_kind("PodDisruptionBudget")
    assert budgets
    groups = manifest("rayservice.yaml")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    least = {group["groupName"]: group["minReplicas"] for group in groups}
    for budget in budgets:
        role = budget["spec"]["selector"]["matchLabels"]["polyvec-role"]
        # A budget of all would hold up the draining of nodes for ever.
        assert 0 < budget["spec"]["minAvailable"] < least[role]
        assert "maxUnavailable" not in budget["spec"]


def test_nothing_comes_in_but_http_and_what_is_named() -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind("NetworkPolicy")}
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    open_to_all = [
        (name, [port["port"] for port in rule.get("ports", ())])
        for name, spec in policies.items()
        for rule in spec.get("ingress", ())
        if "from" not in rule
    ]
    assert open_to_all == [("http", [8000])]


def test_the_operator_is_let_in_from_where_the_runbook_puts_it() -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind("NetworkPolicy")}
    (namespace,) = every_value(policies["operator"], "kubernetes.io/metadata.name")
    assert f"--namespace {namespace} --create-namespace" in RUNBOOK.read_text(encoding="utf-8")


@pytest.mark.parametrize("pod", POLYVEC_PODS, ids=name_of)
def test_probes_ask_what_ray_answers_without_a_token(pod: PodPlace) -> None:
    (container,) = pod.containers
    if pod.labels["polyvec-role"] == "submitter":
        return
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = container[probe]["httpGet"]["path"]
        if path == HAProxyConfig.health_check_endpoint:
            assert probe == "readinessProbe"
            assert {"name": "serve", "containerPort": 8000} in container["ports"]
        else:
            assert path in PUBLIC_EXACT_PATHS


def test_images_have_the_version_of_the_project_and_no_other_is_the_latest() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = (line.split('"')[1] for line in project.splitlines() if line.startswith("version"))
    for pod in PODS:
        for container in pod.containers:
            repository, _, tag = container["image"].partition(":")
            assert tag[0].isdigit(), container["image"]
            if repository.endswith("/polyvec"):
                assert tag in {f"{version}-cpu", f"{version}-gpu"}
