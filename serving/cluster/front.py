"""What stands before the ingresses: Ray Serve's HAProxy, set up so that a dying ingress costs no request.

Ray reads these settings from the environment of its own processes. Where polyvec starts Ray, it sets them;
on a cluster that runs already, its operator does (deploy/kubernetes). Knows names and values; no Ray.
"""

import math
import resource
import socket
from collections.abc import Mapping
from pathlib import Path

from serving.settings import ClusterSettings

# HAProxy's checks, pipes and pools.
_OTHER_FILES = 5000
# An ingress that is stopped goes on answering for this long, until every front knows.
_MIN_DRAIN_S = 2


def front_environment(settings: ClusterSettings) -> dict[str, str]:
    """The environment that Ray is to be started in.

    Requests go straight from HAProxy to an ingress, without Serve's own proxy between them. HAProxy takes a
    whole request in before it sends it, and sends it to another ingress when the first dies without
    an answer: embedding twice gives the same vectors. A request larger than `front_buffer_bytes` is
    passed on as it comes, and fails with its ingress.

    Every change of the ingresses is a new HAProxy process. The one before it answers what comes on
    connections that it has, and knows only the ingresses that there were: what it sends to those is to find
    Serve's own proxy in the end, which knows all.
    """
    # Serve knows no setting for the two lines after the first; what it is given stands in the file as is.
    retry = "\n    ".join(
        [
            "conn-failure empty-response",
            "option http-buffer-request",
            f"timeout http-request {math.ceil(settings.upload_timeout_s)}s",
        ]
    )
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_HAPROXY_RETRY_ON": retry,
        # An update may start as many again; then Serve's proxy, and one for a connection that just ended.
        "RAY_SERVE_HAPROXY_RETRIES": str(2 * settings.ingress_replicas + 2),
        # An ingress that refuses a connection has ended: the next try goes elsewhere. Checks bring back others.
        "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(math.ceil(settings.longest_request_s)),
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(settings.front_buffer_bytes),
        "RAY_SERVE_HAPROXY_MAXCONN": str(_connections(settings.max_connections)),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(math.ceil(settings.keep_alive_s)),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(_MIN_DRAIN_S),
        # Ray's workers would give way to whatever else runs on their machine.
        "RAY_worker_niceness": "0",
        # Everything here is asynchronous: threads of their own for it, and for routing, only cost time.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        # A machine that is busy starting engines is slow, not ill.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _connections(asked: int) -> int:
    """`asked`, or as many as this machine's limit of open files lets HAProxy take, which else does not start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return asked
    # One to the client and one to the ingress.
    return max(1, min(asked, (hard - _OTHER_FILES) // 2))


def front_directory(port: int) -> Path:
    """Where HAProxy's files are, for the one cluster of this machine that listens at `port`.

    Not below TMPDIR: Serve adds 71 characters, and the path of a socket may have 97.
    """
    return Path("/tmp") / f"polyvec-{port}"


def apart(directory: Path) -> Mapping[str, str]:
    """What two clusters on one machine may not share: HAProxy's files and its own ports.

    Args:
        directory: of this cluster alone.
    """
    metrics_port, stats_port = _free_ports()
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(directory / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
    }


def _free_ports() -> tuple[int, int]:
    # Both are held until both are known, or they could be the same.
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])
