"""KubeRay's objects against a schema of our own: the part of ray.io/v1 that the manifests use, as of KubeRay 1.7.

Written from the API reference (docs.ray.io, "KubeRay CRD API reference"), since no package carries the definitions
themselves. Strict: a field that it does not know is an error, as a misspelt one would be; a new field is added here when
a manifest uses it. Pods inside are checked as Kubernetes' own, by `kubernetes-validate`.
"""

from collections.abc import Mapping
from typing import Any

import jsonschema

_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0}
_YES_OR_NO = {"type": "boolean"}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
# Objects of Kubernetes, validated elsewhere.
_POD = {
    "type": "object",
    "required": ["spec"],
    "properties": {"metadata": {}, "spec": {}},
    "additionalProperties": False,
}
_KUBERNETES: dict[str, Any] = {"type": "object"}


def _object(required: Mapping[str, Any], optional: Mapping[str, Any] = {}) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
        "additionalProperties": False,
    }


def _kind(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    metadata = _object(
        {"name": _TEXT, "namespace": _TEXT}, {"labels": _TEXTS, "annotations": _TEXTS}
    )
    return _object(
        {
            "apiVersion": {"const": "ray.io/v1"},
            "kind": {"const": kind},
            "metadata": metadata,
            "spec": spec,
        }
    )


_CREDENTIAL = {
    "oneOf": [
        _object({"value": _TEXT}),
        _object({"valueFrom": _object({"secretKeyRef": _KUBERNETES})}),
    ]
}
_GROUP = {"resources": _TEXTS, "labels": _TEXTS}
_CLUSTER = _object(
    {
        "rayVersion": _TEXT,
        "headGroupSpec": _object({"rayStartParams": _TEXTS, "template": _POD}, _GROUP),
        "workerGroupSpecs": {
            "type": "array",
            "minItems": 1,
            "items": _object(
                {
                    "groupName": _TEXT,
                    "minReplicas": _COUNT,
                    "maxReplicas": _COUNT,
                    "rayStartParams": _TEXTS,
                    "template": _POD,
                },
                {**_GROUP, "replicas": _COUNT, "idleTimeoutSeconds": _COUNT, "numOfHosts": _COUNT},
            ),
        },
    },
    {
        "authOptions": _object({"mode": {"enum": ["token", "disabled"]}}, {"secretName": _TEXT}),
        "enableInTreeAutoscaling": _YES_OR_NO,
        "autoscalerOptions": _object(
            {},
            {
                "version": {"enum": ["v1", "v2"]},
                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
                "idleTimeoutSeconds": _COUNT,
                "resources": _KUBERNETES,
                "securityContext": _KUBERNETES,
                "volumeMounts": {"type": "array", "items": _KUBERNETES},
            },
        ),
        "gcsFaultToleranceOptions": _object(
            {"redisAddress": _TEXT},
            {"redisUsername": _CREDENTIAL, "redisPassword": _CREDENTIAL},
        ),
    },
)
_SERVICE = _object(
    {"serveConfigV2": _TEXT, "rayClusterConfig": _CLUSTER},
    {
        "upgradeStrategy": _object({"type": {"enum": ["NewCluster", "None"]}}),
        "rayClusterDeletionDelaySeconds": _COUNT,
        "excludeHeadPodFromServeSvc": _YES_OR_NO,
        "suspend": _YES_OR_NO,
    },
)
_JOB = _object(
    {"entrypoint": _TEXT, "rayClusterSpec": _CLUSTER},
    {
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode"]},
        "submitterPodTemplate": _POD,
        "backoffLimit": _COUNT,
        "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
        "preRunningDeadlineSeconds": {"type": "integer", "minimum": 1},
        "shutdownAfterJobFinishes": _YES_OR_NO,
        "ttlSecondsAfterFinished": _COUNT,
        "suspend": _YES_OR_NO,
    },
)
_SCHEMAS = {
    kind: jsonschema.Draft202012Validator(_kind(kind, spec))
    for kind, spec in (("RayService", _SERVICE), ("RayJob", _JOB))
}


def complaints(document: Mapping[str, Any]) -> list[str]:
    """What is wrong with a RayService or a RayJob, Pods aside."""
    found = [
        f"{error.json_path}: {error.message}"
        for error in _SCHEMAS[document["kind"]].iter_errors(document)
    ]
    if found:
        return found
    spec = document["spec"]
    cluster = spec.get("rayClusterConfig") or spec["rayClusterSpec"]
    return [*_rules(cluster), *_lifetime(spec)]


def _rules(cluster: Mapping[str, Any]) -> list[str]:
    """What the operator refuses although the definition allows it."""
    found = []
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        name = group.get("groupName", "head")
        counted = {"num-cpus", "num-gpus", "memory", "resources"} & group["rayStartParams"].keys()
        if counted and group.get("resources"):
            found.append(f"{name}: resources stand in rayStartParams ({counted}) as well")
        if "groupName" in group:
            least, most = group["minReplicas"], group["maxReplicas"]
            if not least <= group.get("replicas", least) <= most:
                found.append(f"{name}: replicas are not between minReplicas and maxReplicas")
    # Tokens came with Ray 2.52.
    version = tuple(int(part) for part in cluster["rayVersion"].split("."))
    if cluster.get("authOptions", {}).get("mode") == "token" and version < (2, 52):
        found.append(f"rayVersion {cluster['rayVersion']} knows no tokens")
    return found


def _lifetime(spec: Mapping[str, Any]) -> list[str]:
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        return ["ttlSecondsAfterFinished needs shutdownAfterJobFinishes"]
    return []
