"""A real engine that is killed, stopped and interrupted: nobody waits for it, nothing of it is left."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from serving import EngineDeadError
from serving.engine.protocol import Pooled, TextPrompt, Want
from serving.engine.start import start_engine
from serving.engine.vllm_engine import VllmEngine
from serving.settings import EngineSettings
from serving.supervisor import EngineState, RestartPolicy, SupervisedEngine

# Three starts in one test; each takes minutes where a machine is busy.
pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

SETTINGS = EngineSettings(max_model_tokens=1024)
SINGLE = Want(single=True)
SHORT = TextPrompt((5, 6, 7))
LONG = [TextPrompt(tuple(range(5, 1005)))] * 1000
POLICY = RestartPolicy(probe_interval_s=2, stall_timeout_s=20, max_restarts=3, window_s=3600)


class Started(list[VllmEngine]):
    """The engines that a supervisor started, last one last."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def start(self) -> VllmEngine:
        self.append(await start_engine(self.directory, SETTINGS))
        return self[-1]

    def num_unfinished(self) -> int:
        return self[-1]._exchange.num_waiting


def engine_processes() -> list[psutil.Process]:
    """Every child but the one that multiprocessing keeps for its own ends."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if not any("resource_tracker" in word for word in child.cmdline())
    ]


def shared_memory(processes: list[psutil.Process]) -> set[Path]:
    files = {Path(file.path) for process in processes for file in process.open_files()}
    return {path for path in files if path.name.startswith("psm_")}


async def until(condition: Callable[[], bool], timeout_s: float = 400) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.05)


async def vector(engine: SupervisedEngine) -> torch.Tensor:
    (outcome,) = await engine.embed([SHORT], SINGLE)
    assert isinstance(outcome, Pooled)
    assert outcome.single is not None
    return outcome.single


def test_an_engine_is_replaced_after_its_death_and_its_hang(
    merged_float32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Scheduler and model in two processes, which leave the most behind when they are killed.
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "auto")

    async def scenario() -> None:
        before = engine_processes()
        started = Started(merged_float32 / "code")
        engine = SupervisedEngine(started.start, SHORT, 1024, POLICY, on_give_up=pytest.fail)
        engine.start()
        await until(lambda: engine.state is EngineState.READY)
        expected = await vector(engine)

        await abandon_a_large_call(engine, started)
        for wound in (kill_core, stop_all):
            ours = [process for process in engine_processes() if process not in before]
            segments = shared_memory(ours)
            assert len(segments) > 0
            in_flight = asyncio.create_task(engine.embed(LONG, SINGLE))
            await until(lambda: started.num_unfinished() > 0)
            wound(ours)
            with pytest.raises(EngineDeadError):
                await asyncio.wait_for(in_flight, timeout=60)
            assert engine.state is EngineState.DEAD
            with pytest.raises(EngineDeadError):
                await vector(engine)
            await until(lambda ours=ours: not any(process.is_running() for process in ours), 60)
            if wound is kill_core:
                await until(lambda: engine.state is EngineState.READY)
                assert torch.equal(await vector(engine), expected)
                assert not any(path.exists() for path in segments)

        # Closing breaks the next start off, wherever it is.
        await until(lambda: any(process not in before for process in engine_processes()))
        await engine.close()
        assert len(started) == 2
        assert not [process for process in engine_processes() if process not in before]

    asyncio.run(scenario())


async def abandon_a_large_call(engine: SupervisedEngine, started: Started) -> None:
    """A call that its caller gave up takes no more of the engine."""
    abandoned = asyncio.create_task(engine.embed(LONG, SINGLE))
    await until(lambda: started.num_unfinished() > 100)
    abandoned.cancel()
    with pytest.raises(asyncio.CancelledError):
        await abandoned
    await vector(engine)
    assert started.num_unfinished() == 0


def kill_core(processes: list[psutil.Process]) -> None:
    next(process for process in processes if "Core" in process.name()).kill()


def stop_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        process.suspend()


def test_a_terminal_interrupts_the_parent_alone_and_its_death_ends_the_engine(
    merged_float32: Path, tmp_path: Path
) -> None:
    script = tmp_path / "server.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, signal
            import psutil
            from serving import Embedder, EngineSettings
            # Not an Event: its lock is held where the second handler interrupts the first; and
            # whatever thread the kernel gives a signal to, the pipe gets a byte.
            interrupted, interrupt = os.pipe()
            os.set_blocking(interrupt, False)
            signal.set_wakeup_fd(interrupt)
            signal.signal(signal.SIGINT, lambda *_: None)
            signal.signal(signal.SIGTERM, lambda *_: None)
            embedder = Embedder.load({str(merged_float32 / "code")!r}, settings=EngineSettings(max_model_tokens=1024))
            print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
            os.read(interrupted, 1), os.read(interrupted, 1)
            print(tuple(embedder.encode_text("hello").shape), flush=True)
            signal.pause()
            """
        )
    )
    server = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    ours: list[psutil.Process] = []
    try:
        assert server.stdout is not None
        ours = [psutil.Process(int(pid)) for pid in server.stdout.readline().split()]
        assert len(ours) >= 2
        for number in (signal.SIGINT, signal.SIGTERM):
            os.killpg(server.pid, number)
        assert server.stdout.readline() == "(64,)\n"
        server.kill()
        server.wait()
        _, alive = psutil.wait_procs(ours, timeout=60)
        assert alive == []
    finally:
        server.kill()
        server.communicate()
        for process in ours:
            with suppress(psutil.NoSuchProcess):
                process.kill()
