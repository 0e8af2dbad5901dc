"""A server over the computable engine in this process, and the pipeline behind it: what HTTP costs is between them.

It knows `serving.http` and the Pipeline, which no other benchmark does: there is no other way to leave HTTP out.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from serving import ServerSettings, Text
from serving.allocator import collect_seldom, keep_memory
from serving.engine.fake import FakeEngine
from serving.engine.garbage import settle
from serving.engine.protocol import Want
from serving.http.app import application
from serving.http.logs import configure_logs
from serving.http.server import bind, quiet_server, uvicorn_config
from serving.manifest import find_tasks
from serving.pipeline import Pipeline, Request
from serving.service import Service

_REQUEST = Request(want=Want(single=True), prompt_name="query")


@dataclass(frozen=True, slots=True)
class InProcess:
    """What can be asked.

    Attributes:
        port: of the server, on loopback.
        pipeline: behind it.
    """

    port: int
    pipeline: Pipeline

    async def embed(self, texts: list[str]) -> None:
        """Have `texts` embedded without HTTP."""
        await self.pipeline.embed([Text(text) for text in texts], _REQUEST)


def settle_process() -> None:
    """Set this process up as `polyvec serve` is, but for its log."""
    configure_logs("WARNING", "json")
    # Threads that wait for each other would be counted as work.
    torch.set_num_threads(1)
    keep_memory()
    collect_seldom()


@asynccontextmanager
async def served(checkpoint: Path) -> AsyncIterator[InProcess]:
    """Serve the first task of `checkpoint` until the block is left."""
    (task, directory), *_ = find_tasks(checkpoint).items()
    settings = ServerSettings(port=0)
    service = Service.of_engines({task: directory}, {task: FakeEngine(directory)}, settings)
    listener = bind(settings)
    async with application(service, settings) as app:
        server = quiet_server(uvicorn_config(app, settings))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        settle()
        try:
            yield InProcess(listener.getsockname()[1], service.lane(task).pipeline)
        finally:
            server.should_exit = True
            await serving
