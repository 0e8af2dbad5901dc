"""What a user's process is left with: nothing, after closing, forgetting to close, or an engine's death."""

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from serving import EngineDeadError, EngineStartError
from serving.engine.protocol import TextPrompt, Want
from serving.engine.start import start_engine
from serving.settings import EngineSettings

pytestmark = pytest.mark.engine

SETTINGS = EngineSettings(max_model_tokens=1024)


def engine_processes() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE and "VLLM" in process.name()
    ]


def test_an_unguarded_script_that_forgets_to_close_runs_once_and_leaves_no_process(
    merged_float32: Path, tmp_path: Path
) -> None:
    script = tmp_path / "newcomer.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import psutil
            from serving import Embedder
            print("started", flush=True)
            embedder = Embedder.load({str(merged_float32 / "retrieval")!r})
            print(tuple(embedder.encode_text("hello").shape), flush=True)
            print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    first, shape, pids = done.stdout.splitlines()
    assert (first, shape) == ("started", "(64,)")
    assert len(pids.split()) >= 2
    left = [psutil.Process(int(pid)) for pid in pids.split() if psutil.pid_exists(int(pid))]
    # multiprocessing's resource tracker ends by itself once its parent is gone.
    _, alive = psutil.wait_procs(left, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_an_engine_survives_a_cancelled_call_and_its_death_fails_requests_at_once(
    merged_float32: Path,
) -> None:
    async def scenario() -> None:
        before = {process.pid for process in engine_processes()}
        engine = await start_engine(merged_float32 / "code", SETTINGS)
        ours = [process for process in engine_processes() if process.pid not in before]
        assert ours
        prompts = [TextPrompt(tuple(range(5, 1005)))] * 2000

        abandoned = asyncio.create_task(engine.embed(prompts, Want(single=True)))
        await asyncio.sleep(0.5)
        abandoned.cancel()
        with pytest.raises(asyncio.CancelledError):
            await abandoned
        (outcome,) = await asyncio.wait_for(
            engine.embed([TextPrompt((5, 6, 7))], Want(single=True)), timeout=60
        )
        assert not isinstance(outcome, Exception)
        await engine.check_health()

        in_flight = asyncio.create_task(engine.embed(prompts, Want(single=True)))
        await asyncio.sleep(0.5)
        for process in ours:
            process.kill()
        with pytest.raises(EngineDeadError):
            await asyncio.wait_for(in_flight, timeout=60)
        with pytest.raises(EngineDeadError):
            await engine.check_health()
        with pytest.raises(EngineDeadError):
            await engine.embed(prompts[:1], Want(single=True))
        await engine.close()
        assert {process.pid for process in engine_processes()} <= before

    asyncio.run(scenario())


def test_an_engine_that_cannot_start_says_so(merged_float32: Path) -> None:
    before = {process.pid for process in engine_processes()}
    with pytest.raises(EngineStartError, match="vLLM did not start on"):
        # Not even one prompt of the model's length fits.
        asyncio.run(start_engine(merged_float32 / "code", EngineSettings(cpu_cache_bytes=4096)))
    assert {process.pid for process in engine_processes()} <= before
