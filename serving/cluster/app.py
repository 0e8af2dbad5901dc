"""The Ray Serve application: an ingress, and a deployment for each task.

`build` is what `serve run serving.cluster.app:build models=DIR` and a Serve config's `import_path` name.
Knows how the parts are deployed; not how they work.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

from serving.cluster.ingress import Ingress
from serving.cluster.replica import Post, Replica, StartEngine
from serving.cluster.resources import engines_per_gpu
from serving.cluster.routing import TokenRouter
from serving.cluster.scaling import QueuedTokens
from serving.cluster.starting import start_replica_engine
from serving.errors import SettingsError
from serving.manifest import MANIFEST_NAME, find_tasks
from serving.settings import ClusterSettings, load_cluster_settings

APPLICATION = "polyvec"
INGRESS = "ingress"

# Calls are bounded by the tokens that an ingress lets in; these bounds are never what holds one up.
_MAX_CALLS = 16_384
_HEALTH_PERIOD_S = 2.0
_HEALTH_TIMEOUT_S = 30.0
_LOOK_BACK_S = 15.0


def build(args: dict[str, Any]) -> serve.Application:
    """The application for a Serve config, or for `serve run`.

    Args:
        args: `models`, what `polyvec merge` wrote, there on every node; `tasks`, some of its tasks (a list,
            or names with commas between; default: all); and any field of `ClusterSettings`.

    Raises:
        SettingsError: an argument is missing, unknown or not valid; there are neither keys nor
            `allow_no_keys`, since a Serve config says elsewhere who can reach the port.
        CheckpointError: `models` cannot be served.
        TaskError: it does not have a task.
    """
    given = dict(args)
    models, tasks = given.pop("models", None), given.pop("tasks", None)
    if not models:
        raise SettingsError(
            "The argument models is missing. Pass models=DIR, made by polyvec merge."
        )
    if isinstance(tasks, str):
        tasks = [task.strip() for task in tasks.split(",") if task.strip()]
    settings = load_cluster_settings(given)
    if settings.keys is None and not settings.allow_no_keys:
        raise SettingsError(
            "There are no keys, and Ray Serve may listen to other machines. Make one "
            "(polyvec keys add NAME --keys FILE) and pass keys=FILE; "
            "where a gateway checks callers, pass allow_no_keys=true."
        )
    return cluster_application(Path(models), tasks, settings)


def cluster_application(
    models: Path,
    tasks: Sequence[str] | None,
    settings: ClusterSettings,
    start: StartEngine = start_replica_engine,
) -> serve.Application:
    """The application, to be given to `serve.run`.

    Args:
        models: what `polyvec merge` wrote, at the same place on every node.
        tasks: some of its tasks; None is all.
        settings: the cluster's.
        start: starts the engine of a replica; sent to it.

    Raises:
        CheckpointError: `models` cannot be served.
        TaskError: it does not have a task, or `min_replicas` or `max_replicas` names another.
        SettingsError: keys have limits that several ingresses would each count for themselves.
    """
    models = models.absolute()
    if settings.keys is not None:
        # Ray's processes run elsewhere.
        settings = settings.model_copy(update={"keys": settings.keys.absolute()})
    directories = find_tasks(models, tasks)
    settings.check_tasks(list(directories))
    gpus = _gpus_per_replica(settings, len(directories))
    replicas = {
        task: _task_deployment(task, settings, gpus).bind(
            Post(models, task, _revision(directory), engines_per_gpu(gpus)), settings, start
        )
        for task, directory in directories.items()
    }
    return _ingress_deployment(settings).bind(models, settings, replicas)


def _task_deployment(task: str, settings: ClusterSettings, gpus: float) -> serve.Deployment:
    return serve.deployment(
        name=task,
        max_ongoing_requests=_MAX_CALLS,
        ray_actor_options={"num_cpus": settings.cpus_per_replica, "num_gpus": gpus},
        request_router_config=RequestRouterConfig(request_router_class=TokenRouter),
        health_check_period_s=_HEALTH_PERIOD_S,
        health_check_timeout_s=_HEALTH_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=settings.drain_timeout_s,
        **_scale(task, settings),
    )(Replica)


def _scale(task: str, settings: ClusterSettings) -> Mapping[str, Any]:
    bounds = settings.replicas(task)
    if bounds.least == bounds.most:
        return {"num_replicas": bounds.most}
    target_tokens = settings.target_queued_tokens or 2 * settings.max_batch_tokens
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=bounds.least,
            max_replicas=bounds.most,
            upscale_delay_s=settings.upscale_delay_s,
            downscale_delay_s=settings.downscale_delay_s,
            look_back_period_s=_LOOK_BACK_S,
            policy=AutoscalingPolicy(
                policy_function=QueuedTokens, policy_kwargs={"target_tokens": target_tokens}
            ),
        )
    }


def _ingress_deployment(settings: ClusterSettings) -> serve.Deployment:
    return serve.deployment(
        name=INGRESS,
        num_replicas=settings.ingress_replicas,
        max_ongoing_requests=_MAX_CALLS,
        ray_actor_options={"num_cpus": settings.cpus_per_ingress},
        health_check_period_s=_HEALTH_PERIOD_S,
        health_check_timeout_s=_HEALTH_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=0.5,
        # One that an update replaces answers all that it accepted; a task without a replica may keep that
        # waiting for as long as an engine takes to start.
        graceful_shutdown_timeout_s=settings.longest_request_s,
    )(serve.ingress()(Ingress))


def _gpus_per_replica(settings: ClusterSettings, num_tasks: int) -> float:
    if settings.gpus_per_replica is not None:
        return settings.gpus_per_replica
    num_gpus = float(ray.cluster_resources().get("GPU", 0)) if ray.is_initialized() else 0.0
    if num_gpus >= num_tasks:
        return 1.0
    # Ray counts hundredths; three thirds must fit.
    return int(100 * num_gpus / num_tasks) / 100


def _revision(directory: Path) -> str:
    return hashlib.sha256((directory / MANIFEST_NAME).read_bytes()).hexdigest()[:16]
