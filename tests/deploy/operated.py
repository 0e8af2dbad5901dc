"""Runs a RayService's configuration as KubeRay does, on this machine: Ray in the environment of the Pods, the configuration
through its dashboard, with its token. Run as a module this is the process that Ray is started by.
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import ray

from serving.cluster.app import APPLICATION
from serving.cluster.front import apart
from tests.deploy.files import ROOT

START_S = 240.0
STOP_S = 30.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Operated:
    """A Ray that takes configurations.

    Attributes:
        dashboard: where it takes them.
        config: is what is applied.
    """

    dashboard: httpx.Client
    config: dict[str, Any]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.config['http_options']['port']}"

    def apply(self) -> None:
        answer = self.dashboard.put("/api/serve/applications/", json=self.config)
        assert answer.status_code == 200, answer.text

    def replicas(self) -> dict[str, set[str]]:
        """Of each deployment, if the application runs."""
        applications = self.dashboard.get("/api/serve/applications/").json()["applications"]
        found = applications.get(APPLICATION, {"status": "NOT_STARTED"})
        assert found["status"] != "DEPLOY_FAILED", found
        if found["status"] != "RUNNING":
            return {}
        return {
            name: {replica["replica_id"] for replica in deployment["replicas"]}
            for name, deployment in found["deployments"].items()
        }

    def until_running(self, *, without: frozenset[str] = frozenset()) -> dict[str, set[str]]:
        """The replicas, once the application runs and those named are gone."""
        give_up = time.monotonic() + START_S
        while not (found := self.replicas()) or set().union(*found.values()) & without:
            assert time.monotonic() < give_up, found
            time.sleep(_POLL_S)
        return found


@contextmanager
def operated(
    config: dict[str, Any], environment: Mapping[str, str], resources: Mapping[str, int]
) -> Iterator[Operated]:
    """A Ray on this machine, which listens where nobody else does, until the block is left.

    Args:
        config: a Serve configuration; nothing is applied yet.
        environment: of the Pods.
        resources: that Ray counts: CPU, GPU and others.
    """
    token, port = secrets.token_hex(32), free_port()
    config["http_options"]["port"] = free_port()
    with ExitStack() as undo:
        # Paths of sockets are short, so not below a test's directory.
        front = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="front-", dir="/tmp")))
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                __name__,
                str(port),
                *(f"{k}={v}" for k, v in resources.items()),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                **environment,
                **apart(front),
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": token,
                "PYTHONPATH": str(ROOT),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        undo.callback(_end, process)
        assert process.stdout is not None
        assert any(line == "ready\n" for line in process.stdout)
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=180,  # applying takes long where every core is taken
            trust_env=False,
        )
        yield Operated(undo.enter_context(client), config)


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    started = [psutil.Process(process.pid)]
    started += started[0].children(recursive=True)
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    for left in started:
        with suppress(psutil.NoSuchProcess):
            left.kill()
    process.wait()
    process.stdout.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main() -> None:
    port, *given = sys.argv[1:]
    resources = {name: int(count) for name, count in (word.split("=") for word in given)}
    ray.init(
        address="local",
        num_cpus=resources.pop("CPU"),
        num_gpus=resources.pop("GPU"),
        resources=resources,
        include_dashboard=True,
        dashboard_port=int(port),
        log_to_driver=False,
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
