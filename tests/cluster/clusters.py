"""Real clusters: `run_cluster` in a process of its own, with engines that a test chooses by name.

Run as a module this is that process.
"""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from serving.engine.fake import FakeEngine
from serving.engine.protocol import Engine, Outcome, Prompt, TextPrompt, Want
from serving.errors import EngineDeadError
from serving.settings import EngineSettings

ROOT = Path(__file__).parents[2]
START_S = 180.0
STOP_S = 90.0
# Far below what they use: several run on a small machine.
CPUS = {"cpus_per_replica": 0.1, "cpus_per_ingress": 0.1}


class SlowEngine(FakeEngine):
    """Takes a second for each thousand tokens, one batch after the other; dies of the token 13."""

    def __init__(self, directory: Path, settings: EngineSettings) -> None:
        super().__init__(directory, settings)
        self._turn = asyncio.Lock()
        self._dead = False

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        async with self._turn:
            await asyncio.sleep(sum(len(prompt.token_ids) for prompt in prompts) / 1000)
            self._dead |= any(
                isinstance(prompt, TextPrompt) and _POISON in prompt.token_ids for prompt in prompts
            )
            if self._dead:
                raise EngineDeadError("The core died.")
            return await super().embed(prompts, want)


_POISON = 13


async def start_fake(directory: Path, settings: EngineSettings, shares: int) -> Engine:
    del shares
    return FakeEngine(directory, settings)


async def start_slow(directory: Path, settings: EngineSettings, shares: int) -> Engine:
    del shares
    return SlowEngine(directory, settings)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running one.

    Attributes:
        process: which started Ray and waits to be told to stop.
        url: where it listens.
        ray_address: of its Ray.
        ray_token: which its Ray asks for.
        log: what the process has printed so far.
    """

    process: "subprocess.Popen[bytes]"
    url: str
    ray_address: str
    ray_token: str
    log: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, trust_env=False)

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """Processes of a deployment's replicas."""
        name = f"ray::ServeReplica:polyvec:{deployment}"
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, IndexError):
                # Ray adds the method that runs just now.
                if process.cmdline()[0].strip().partition(".")[0] == name:
                    found.append(process)
        return found

    def until_replicas(self, deployment: str, count: int) -> list[psutil.Process]:
        give_up = time.monotonic() + START_S
        while len(found := self.replicas(deployment)) != count:
            assert time.monotonic() < give_up, (deployment, count, found)
            time.sleep(0.1)
        return found


@contextmanager
def running_cluster(
    models: Path, start: str, tasks: Sequence[str], *, start_s: float = START_S, **settings: object
) -> Iterator[Cluster]:
    """A cluster on this machine with the engines that `start` names, until the block is left."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        order = {
            "models": str(models),
            "start": start,
            "tasks": list(tasks),
            "settings": CPUS | {"port": 0} | settings,
        }
        token = secrets.token_hex(32)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.clusters", json.dumps(order)],
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
            )
        started: list[psutil.Process] = []
        try:
            said = _until_ready(process, log, start_s)
            yield Cluster(process, said["ready"], said["ray"], token, log)
        finally:
            with suppress(psutil.NoSuchProcess):
                started = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            finally:
                process.kill()
                for child in started:
                    with suppress(psutil.NoSuchProcess):
                        child.kill()


def _until_ready(process: "subprocess.Popen[bytes]", log: Path, start_s: float) -> dict[str, str]:
    """What the process says of itself, by its first words."""
    give_up = time.monotonic() + start_s
    while True:
        said = log.read_text(encoding="utf-8", errors="replace")
        words = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
        if "ready" in words:
            return words
        assert process.poll() is None, said
        assert time.monotonic() < give_up, said
        time.sleep(0.05)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the cluster that the first argument describes."""
    import ray

    from serving.cluster.run import run_cluster
    from serving.cluster.starting import start_replica_engine
    from serving.http.server import Announce
    from serving.settings import ClusterSettings
    from tests.cluster import clusters

    order = json.loads(sys.argv[1])
    # By this module's real name: replicas import it.
    starts = {
        "fake": clusters.start_fake,
        "slow": clusters.start_slow,
        "vllm": start_replica_engine,
    }
    status = run_cluster(
        Path(order["models"]),
        order["tasks"],
        ClusterSettings(**order["settings"]),
        Announce(
            bound=lambda bound: _say(f"ray {ray.get_runtime_context().gcs_address}"),
            ready=lambda bound: _say(f"ready {bound.url}"),
        ),
        start=starts[order["start"]],
        num_cpus=8,
    )
    raise SystemExit(status)


if __name__ == "__main__":
    main()
