"""Runs a cluster's application from the command line until it is asked to stop. It prints nothing."""

import logging
import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import ray
from ray import serve
from ray.serve.api import RunTarget
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, LoggingConfig

from serving.cluster.app import APPLICATION, INGRESS, cluster_application
from serving.cluster.front import apart, front_directory, front_environment
from serving.cluster.leftovers import end_orphans
from serving.cluster.local import joins, ray_session
from serving.cluster.replica import StartEngine
from serving.cluster.resources import lacking
from serving.cluster.starting import start_replica_engine
from serving.errors import EngineStartError, SettingsError
from serving.http.key_file import read_key_file
from serving.http.logs import configure_logs
from serving.http.server import Announce, Bound, bind
from serving.settings import ClusterSettings

_log = logging.getLogger(__name__)

_POLL_S = 0.5
_ANSWER_S = 5.0
_FAILED = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.NOT_STARTED)


def run_cluster(
    models: Path,
    tasks: Sequence[str],
    settings: ClusterSettings,
    announce: Announce,
    *,
    start: StartEngine = start_replica_engine,
    num_cpus: int | None = None,
) -> int:
    """Serve on a cluster until SIGTERM or SIGINT, then answer what was accepted and return.

    Args:
        models: what `polyvec merge` wrote, at the same place on every node.
        tasks: of these.
        settings: everything else.
        announce: told where the cluster listens, and when every task answers.
        start: starts the engine of a replica.
        num_cpus: CPUs that Ray counts at least where it is started here; None is what the replicas take.

    Returns:
        The process's exit status.

    Raises:
        CheckpointError: `models` cannot be served.
        SettingsError: a setting is not valid, the keys cannot be read, the port is taken, there is no cluster to join, or
            fewer GPUs than the replicas want.
        EngineStartError: the application did not come up; Ray's logs say why.
    """
    configure_logs(settings.server_log_level, settings.log_format)
    host, port = settings.host.strip("[]"), settings.port
    environment = front_environment(settings)
    afterwards = ExitStack()
    # A cluster that runs already may listen there itself: then its application is replaced.
    if not joins(settings.ray_address):
        if settings.keys is not None:
            # Before Ray: an ingress that cannot read them would say so in Ray's logs only.
            read_key_file(settings.keys)
        end_orphans(front_directory(port))
        port = _free_port(settings)
        environment |= apart(front_directory(port))
        afterwards.callback(shutil.rmtree, front_directory(port), ignore_errors=True)
    stop = threading.Event()
    with (
        afterwards,
        ray_session(
            settings.ray_address,
            environment=environment,
            least_cpus=num_cpus or _cpus(tasks, settings),
        ),
        # Once Ray has begun, which takes signals for failures and prints where it stands.
        _told(stop),
        ExitStack() as undo,
    ):
        application = cluster_application(models, tasks, settings, start)
        _refuse_without_gpus(tasks, settings)
        announce.bound(Bound(host, port))
        undo.callback(_end, settings)
        serve.start(
            proxy_location=ProxyLocation.EveryNode,
            http_options=HTTPOptions(
                host=host, port=port, keep_alive_timeout_s=math.ceil(settings.keep_alive_s)
            ),
            logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        )
        serve.run_many(
            [RunTarget(application, name=APPLICATION, route_prefix="/")],
            wait_for_applications_running=False,
        )
        _until_running(stop, settings.engine_start_timeout_s)
        if not stop.is_set():
            announce.ready(Bound(host, port))
        stop.wait()
    return 0


def _refuse_without_gpus(tasks: Sequence[str], settings: ClusterSettings) -> None:
    """Refuse what Serve would wait for until the time to start is over; a cluster that was joined may grow."""
    if settings.gpus_per_replica is None or joins(settings.ray_address):
        return
    # One of a task that begins with none is started by its first request.
    replicas = max(1, sum(settings.replicas(task).least for task in tasks))
    wanted = {"GPU": settings.gpus_per_replica * replicas}
    if (missing := lacking("replicas", wanted, ray.cluster_resources())) is not None:
        raise SettingsError(
            f"{missing}. Ask for less with gpus_per_replica or min_replicas, or join a cluster with ray_address."
        )


def _cpus(tasks: Sequence[str], settings: ClusterSettings) -> float:
    """CPUs for the most replicas that were asked for, and for Serve."""
    replicas = sum(settings.replicas(task).most for task in tasks) * settings.cpus_per_replica
    return replicas + settings.ingress_replicas * settings.cpus_per_ingress + 1


def _until_running(stop: threading.Event, timeout_s: float) -> None:
    """Wait until every task answers.

    Raises:
        EngineStartError: one does not.
    """
    give_up = time.monotonic() + timeout_s
    while not stop.is_set():
        application = serve.status().applications.get(APPLICATION)
        if application is not None:
            if application.status is ApplicationStatus.RUNNING:
                return
            if application.status in _FAILED or time.monotonic() > give_up:
                raise EngineStartError(
                    f"The application did not come up: {application.message} "
                    "What its replicas say is in Ray's logs (logs/serve)."
                )
        stop.wait(_POLL_S)


def _end(settings: ClusterSettings) -> None:
    """Answer what was accepted, then stop the application; Serve ends with Ray, where that was started for it."""
    try:
        _drain(settings)
        serve.delete(APPLICATION)
    except (RayServeException, TimeoutError) as error:
        _log.error("The application did not stop in order: %s", error)


def _drain(settings: ClusterSettings) -> None:
    # Before replicas are told to stop: what the ingresses have accepted needs them.
    if APPLICATION not in serve.status().applications:
        return
    delay_s, timeout_s = settings.drain_delay_s, settings.drain_timeout_s
    ingresses = serve.get_deployment_handle(INGRESS, APPLICATION)
    drained = ingresses.broadcast("drain", delay_s, timeout_s)
    if lost := sum(drained.results(timeout_s=delay_s + timeout_s + _ANSWER_S)):
        _log.error("%d requests were not answered within drain_timeout_s.", lost)


@contextmanager
def _told(stop: threading.Event) -> Iterator[None]:
    """Within the block, SIGTERM and SIGINT set `stop`; a second one interrupts."""

    def asked(number: int, frame: FrameType | None) -> None:
        del frame
        if stop.is_set():
            raise KeyboardInterrupt
        _log.info("Stopping on %s.", signal.Signals(number).name)
        stop.set()

    before = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port(settings: ClusterSettings) -> int:
    """The port to listen at; found to be free before Ray is started.

    Raises:
        SettingsError: it is not.
    """
    listener = bind(settings)
    with listener:
        return int(listener.getsockname()[1])
