"""Real `polyvec serve` processes over computable engines, each forked from one that has imported everything.

Run as a module this is that one: for each order on stdin it forks, says the child's id, and then its exit
status. Importing costs seconds, which every process of its own would pay again.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from serving.engine.fake import FakeEngine
from serving.engine.protocol import Outcome, Prompt, Want
from serving.engine.thread import in_own_thread
from serving.errors import EngineDeadError, EngineStartError
from serving.settings import EngineSettings

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0


class GatedEngine(FakeEngine):
    """Answers nothing while the file `held` is there, and is dead once `dead` is."""

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        while Path("held").exists():
            await asyncio.sleep(0.01)
        return await super().embed(prompts, want)

    async def check_health(self) -> None:
        await super().check_health()
        if Path("dead").exists():
            raise EngineDeadError("The core died.")


async def start_engine(
    directory: Path, settings: EngineSettings, *, num_engines: int
) -> GatedEngine:
    """Start, as far as the files in the working directory let it."""
    if Path("no-memory").exists():
        raise EngineStartError("There is no memory left.")
    if Path("hangs").exists():
        await asyncio.Event().wait()
    if Path("hangs-in-import").exists():
        Path("hanging").touch()
        await in_own_thread(threading.Event().wait)
    return GatedEngine(directory, settings)


def preload() -> None:
    """Stands in for an import of seconds."""
    while Path("loading").exists():
        time.sleep(0.01)
    if Path("broken").exists():
        raise ImportError("There is no torchvision.")


def run_orders() -> None:
    """Fork for each line of stdin; the child runs the command and ends as it does."""
    import serving.engine.start
    import serving.engine.thread
    import serving.http.server
    from polyvec.cli import main

    serving.engine.start.start_engine = start_engine  # type: ignore[assignment]
    serving.engine.start.runs_on_cpu = lambda: True
    serving.engine.thread._CANCEL_TIMEOUT_S = 0.2
    serving.http.server.preload = preload
    gc.freeze()  # a child need not look at it all when it ends
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os.chdir(order["directory"])
            for name, number in (("out", 1), ("err", 2)):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
            sys.argv = ["polyvec", "serve", *order["arguments"]]
            main()
            return
        os.write(1, f"{child}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(1, f"{status}\n".encode())


@dataclass(frozen=True, slots=True)
class Served:
    """One server process.

    Attributes:
        directory: its working directory, with its output in `out` and `err`.
        pid: its id.
        forker: tells its exit status.
    """

    directory: Path
    pid: int
    forker: "subprocess.Popen[str]"

    @property
    def out(self) -> str:
        return (self.directory / "out").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return (self.directory / "err").read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        """Where it listens; waits until it does."""
        self.until_printed("Loading the engines.")
        return self.out.splitlines()[0].rpartition(" ")[2]

    def until_printed(self, text: str) -> None:
        give_up = time.monotonic() + LIMIT_S
        while text not in self.out:
            assert time.monotonic() < give_up, self.out + self.err
            time.sleep(0.01)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, trust_env=False, timeout=LIMIT_S)

    def touch(self, name: str) -> None:
        (self.directory / name).touch()

    def remove(self, name: str) -> None:
        (self.directory / name).unlink()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def exit_status(self) -> int:
        """Wait for its end; one that does not come is a kill, and shows as one."""
        late = threading.Timer(LIMIT_S, os.kill, (self.pid, 9))
        late.start()
        try:
            assert self.forker.stdout is not None
            return int(self.forker.stdout.readline())
        finally:
            late.cancel()


class Forker:
    """Starts servers, one at a time."""

    def __init__(self, process: "subprocess.Popen[str]", models: Path) -> None:
        self._process = process
        self.models = models

    def serve(self, directory: Path, *options: str, models: Path | None = None) -> Served:
        """`polyvec serve MODELS OPTIONS` on a free port."""
        (directory / "out").touch()
        (directory / "err").touch()
        arguments = [str(models or self.models), "--port", "0", *options]
        order = {"directory": str(directory), "arguments": arguments}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Served(directory, int(self._process.stdout.readline()), self._process)


@contextmanager
def forking(models: Path) -> Iterator[Forker]:
    """A `Forker` for checkpoints in `models`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.served"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Forker(process, models)


if __name__ == "__main__":
    run_orders()
