"""Runs the application: binds first, loads engines behind the open port, drains on a signal, and exits.

The one module that knows uvicorn and signals. It prints nothing.
"""

import asyncio
import contextlib
import math
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import uvloop

from serving.engine.protocol import Engine
from serving.errors import EngineError, SettingsError
from serving.http.app import application
from serving.http.edge import Draining
from serving.http.logs import configure_logs
from serving.http.protocol import ConnectionLimits, bounded_protocol
from serving.images import preload
from serving.service import Service
from serving.settings import ServerSettings

_BACKLOG = 2048
_READY_POLL_S = 0.1
# Closing engines takes their own bounded time; what is stuck after this is left to the system.
_CLOSE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a server listens.

    Attributes:
        host: as it was asked for.
        port: the real one, also when a free one was asked for.
    """

    host: str
    port: int

    @property
    def url(self) -> str:
        """What a client on this machine opens."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return (
            f"http://[{host}]:{self.port}"
            if ":" in host.strip("[]")
            else f"http://{host}:{self.port}"
        )


@dataclass(frozen=True, slots=True)
class Announce:
    """What a server tells whoever started it.

    Attributes:
        bound: it listens, and loads its engines.
        ready: every engine answers.
    """

    bound: Callable[[Bound], None]
    ready: Callable[[Bound], None]


def run(
    listener: socket.socket,
    directories: Mapping[str, Path],
    start: Callable[[Path], Awaitable[Engine]],
    settings: ServerSettings,
    *,
    parallel: bool,
    announce: Announce,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was accepted and return.

    Args:
        listener: made by `bind`, which comes first because it can fail at once; closed at the end.
        directories: the merged checkpoint of each task.
        start: starts an engine on one.
        settings: everything else.
        parallel: start engines at once.
        announce: told where the server listens, and when it is ready.

    Raises:
        CheckpointError: a directory cannot be served.
        SettingsError: a setting is not valid.
        EngineError: an engine did not come up, or did not stay up.
    """
    configure_logs(settings.server_log_level, settings.log_format)
    with contextlib.closing(listener), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            _serve(directories, start, settings, listener, parallel=parallel, announce=announce)
        )


def bind(settings: ServerSettings) -> socket.socket:
    """Take the port, before anything that takes time.

    Raises:
        SettingsError: it cannot be taken.
    """
    host = settings.host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"host {settings.host} cannot be bound ({error.strerror}).") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"{settings.host}:{settings.port} cannot be bound ({error.strerror}). "
            "Stop what uses it, or pass another --port."
        ) from error
    return listener


async def _serve(
    directories: Mapping[str, Path],
    start: Callable[[Path], Awaitable[Engine]],
    settings: ServerSettings,
    listener: socket.socket,
    *,
    parallel: bool,
    announce: Announce,
) -> None:
    bound = Bound(settings.host, listener.getsockname()[1])
    stop = _Stop(settings)
    service = Service.supervised(
        directories, start, settings, parallel=parallel, on_give_up=stop.give_up
    )
    try:
        async with application(service, settings, draining=stop.draining) as app:
            server = _Server(uvicorn_config(app, settings))
            with stop.on_signals(server):
                announce.bound(bound)
                watching = asyncio.create_task(_announce_ready(service, bound, announce))
                try:
                    await server.serve(sockets=[listener])
                finally:
                    watching.cancel()
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await service.close()
    if stop.failure is not None:
        raise stop.failure


def uvicorn_config(app: object, settings: ServerSettings) -> uvicorn.Config:
    """How uvicorn runs the application; every bound that it lacks is in `protocol`."""
    limits = ConnectionLimits(
        upload_timeout_s=settings.upload_timeout_s, max_connections=settings.max_connections
    )
    return uvicorn.Config(
        app,  # type: ignore[arg-type] # FastAPI is an ASGI application
        http=bounded_protocol(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(settings.keep_alive_s),
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_s),
        backlog=_BACKLOG,
    )


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def quiet_server(config: uvicorn.Config) -> uvicorn.Server:
    """A server that leaves signals to whoever runs it."""
    return _Server(config)


class _Stop:
    """How a server ends: asked to, or because an engine was given up."""

    def __init__(self, settings: ServerSettings) -> None:
        self.draining = Draining()
        self.failure: EngineError | None = None
        self._delay_s = settings.drain_delay_s
        self._server: _Server | None = None

    @contextlib.contextmanager
    def on_signals(self, server: _Server) -> Iterator[None]:
        """End `server` on SIGTERM and SIGINT, within the block; a second signal ends it at once."""
        self._server = server
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked)
        try:
            if self.failure is not None:
                server.should_exit = True
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def give_up(self, task: str, error: EngineError) -> None:
        """End the server because the engine of `task` cannot be had."""
        if self.failure is None:
            self.failure = type(error)(f"The engine of {task} is given up: {error}")
        self.draining.is_on = True
        if self._server is not None:
            self._server.should_exit = True

    def _asked(self) -> None:
        assert self._server is not None
        if self.draining.is_on:
            self._server.should_exit = self._server.force_exit = True
            return
        self.draining.is_on = True
        asyncio.get_running_loop().call_later(self._delay_s, self._exit)

    def _exit(self) -> None:
        assert self._server is not None
        self._server.should_exit = True


async def _announce_ready(service: Service, bound: Bound, announce: Announce) -> None:
    while await service.unready():
        await asyncio.sleep(_READY_POLL_S)
    # Not beside the engines' start, which imports the same library in threads of its own.
    await asyncio.to_thread(preload)
    announce.ready(bound)
