"""How a replica starts its engine: beside others on the same accelerator, one after the other.

Each engine measures the accelerator's free memory while it starts, so no other may start meanwhile, in
whichever process of the machine. Importing this module imports no vLLM.
"""

import asyncio
import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from serving.engine.protocol import Engine
from serving.settings import EngineSettings

_POLL_S = 0.5


async def start_replica_engine(directory: Path, settings: EngineSettings, shares: int) -> Engine:
    """Start vLLM on `directory`, as one of `shares` engines on an accelerator.

    Raises:
        CheckpointError: the directory is not a whole merged checkpoint.
        EngineStartError: vLLM is not installed, or did not come up.
    """
    from serving.engine.start import start_engine

    lock = FileLock(Path(tempfile.gettempdir()) / f"polyvec-start-{os.getuid()}-{_devices()}.lock")
    try:
        while shares > 1:
            try:
                lock.acquire(blocking=False)
                break
            except Timeout:
                await asyncio.sleep(_POLL_S)
        return await start_engine(directory, settings, num_engines=shares)
    finally:
        lock.release()


def _devices() -> str:
    """The accelerators that Ray gave this process, in a form that can stand in a file's name."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return "".join(char if char.isalnum() else "_" for char in devices) or "cpu"
