"""A real redis-server on loopback, for as long as a `with` lasts."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from pydantic import SecretStr

_START_S = 20


@dataclass(slots=True)
class RedisServer:
    """One server and how to reach it; `stop` and `start` keep its port and lose its data."""

    port: int
    directory: Path
    password: str | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> SecretStr:
        password = f":{self.password}@" if self.password else ""
        return SecretStr(f"redis://{password}127.0.0.1:{self.port}/0")

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self.password, socket_timeout=5)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        binary = shutil.which("redis-server")
        assert binary is not None, (
            "These tests need redis-server. On Debian: apt-get install redis-server"
        )
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "dir": self.directory}
        if self.password:
            options["requirepass"] = self.password
        arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        log = self.directory / "redis.log"
        self.process = subprocess.Popen([binary, *arguments, "--logfile", log])
        give_up = time.monotonic() + _START_S
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    if self.process.poll() is not None or time.monotonic() > give_up:
                        raise AssertionError(f"no redis-server: {log.read_text('utf-8')}") from None
                    time.sleep(0.01)

    def stop(self) -> None:
        """Kill it, paused or not."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Let it hold its connections and answer nothing."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)


@contextmanager
def redis_server(directory: Path, password: str | None = None) -> Iterator[RedisServer]:
    """A server that has answered; gone when the block is left."""
    server = RedisServer(_free_port(), directory, password)
    try:
        # Another process may have taken the port since; then once more with another one.
        try:
            server.start()
        except AssertionError:
            server.stop()
            server.port = _free_port()
            server.start()
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
