"""The single process that a cluster is compared with. Spawned, so it cannot stand in the main module."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from benchmarks.scaling.engines import TimedEngine
from serving.http.app import application
from serving.http.logs import configure_logs
from serving.http.server import bind, quiet_server, uvicorn_config
from serving.manifest import find_tasks
from serving.service import Service
from serving.settings import ServerSettings


@contextmanager
def single_process(checkpoint: Path) -> Iterator[int]:
    """The server of one process, with engines that take no time; where it listens."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(checkpoint, theirs))
    process.start()
    try:
        port = mine.recv()
        assert isinstance(port, int)
        yield port
    finally:
        process.terminate()
        process.join()


def _serve(checkpoint: Path, parent: "Connection[object, object]") -> None:
    configure_logs("WARNING", "json")

    async def run() -> None:
        settings = ServerSettings(port=0)
        directories = find_tasks(checkpoint)
        engines = {
            task: TimedEngine(path, page_s=0.0, text_batch_s=0.0)
            for task, path in directories.items()
        }
        service = Service.of_engines(directories, engines, settings)
        listener = bind(settings)
        async with application(service, settings) as app:
            server = quiet_server(uvicorn_config(app, settings))
            parent.send(listener.getsockname()[1])
            await server.serve(sockets=[listener])

    uvloop.run(run())
