"""Runs the application: binds first, loads engines behind the open port, drains on a signal, and exits.

The one module that knows uvicorn and signals. It prints nothing.
"""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
import uvicorn
import uvloop

from serving.allocator import collect_seldom, keep_memory
from serving.engine.protocol import Engine
from serving.engine.thread import calls_go_on, in_own_thread
from serving.errors import EngineError, PolyvecError, SettingsError
from serving.http.app import application
from serving.http.edge import Draining
from serving.http.health import Loading
from serving.http.logs import configure_logs
from serving.http.open_files import raise_open_files
from serving.http.protocol import ConnectionLimits, bounded_protocol
from serving.images import preload
from serving.service import Service
from serving.settings import ServerSettings
from serving.starts import Starts

_log = logging.getLogger(__name__)

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
        bare = self.host.strip("[]")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bare, bare)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


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
    may_overlap: Callable[[], bool],
    announce: Announce,
) -> int:
    """Serve until SIGTERM or SIGINT, then answer what was accepted and return.

    Does not return, but ends the process, when an engine's start hangs so that nothing can end it.

    Args:
        listener: made by `bind`, which comes first because it can fail at once; closed at the end.
        directories: the merged checkpoint of each task.
        start: starts an engine on one.
        settings: everything else.
        may_overlap: whether engines may start at once; asked when the server answers already.
        announce: told where the server listens, and when it is ready.

    Returns:
        The process's exit status: 0, or 128 and the signal's number when a second signal lost requests.

    Raises:
        CheckpointError: a directory cannot be served.
        SettingsError: a setting is not valid.
        EngineError: an engine did not come up, or did not stay up.
    """
    configure_logs(settings.server_log_level, settings.log_format)
    raise_open_files(settings.max_connections)
    keep_memory()
    collect_seldom()
    # Blocks of vectors are small here: threads that share one cost more than they save.
    torch.set_num_threads(1)
    failure: PolyvecError | None = None
    try:
        with contextlib.closing(listener), _loop() as runner:
            starts = Starts(
                start, may_overlap=may_overlap, timeout_s=settings.engine_start_timeout_s
            )
            status = runner.run(_serve(directories, starts, settings, listener, announce))
    except PolyvecError as error:
        failure, status = error, 1
    if calls_go_on():
        _leave(status, failure)
    if failure is not None:
        raise failure
    return status


def _loop() -> asyncio.Runner:
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def _leave(status: int, failure: PolyvecError | None) -> NoReturn:
    """Exit beside a thread that hangs: the interpreter's own end would wait for it, or crash."""
    _log.error("%s A start that nothing can end is left to the system.", failure or "Stopped.")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


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
    starts: Starts,
    settings: ServerSettings,
    listener: socket.socket,
    announce: Announce,
) -> int:
    bound = Bound(settings.host, listener.getsockname()[1])
    stop, loading = _Stop(settings), Loading(is_on=True)
    # Until the engines are closed: a signal must not leave their processes behind.
    with stop.on_signals():
        service = Service.supervised(directories, starts.start, settings, on_give_up=stop.give_up)
        try:
            async with application(
                service, settings, draining=stop.draining, loading=loading
            ) as app:
                # Whatever is wrong with the settings has been said; only now anything slow begins.
                announce.bound(bound)
                starts.allow()
                watching = asyncio.create_task(_watch(service, loading, bound, announce))
                try:
                    await stop.served(_Server(uvicorn_config(app, settings)), listener)
                finally:
                    watching.cancel()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await service.close()
    if stop.failure is not None:
        raise stop.failure
    return stop.status


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
        self.status = 0
        self._delay_s = settings.drain_delay_s
        self._asked_by: signal.Signals | None = None
        self._is_over = False
        self._forced_by: signal.Signals | None = None
        self._server: _Server | None = None

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to SIGTERM and SIGINT within the block: one drains the server, a second ends it at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def served(self, server: _Server, listener: socket.socket) -> None:
        """Serve with `server` until it is asked to end, and has."""
        self._server = server
        self._end()
        await server.serve(sockets=[listener])
        if self._forced_by is not None and server.server_state.tasks:
            _log.error(
                "A second signal ended the server with %d requests unanswered.",
                len(server.server_state.tasks),
            )
            self.status = 128 + self._forced_by

    def give_up(self, task: str, error: EngineError) -> None:
        """End the server because the engine of `task` cannot be had."""
        if self.failure is None:
            self.failure = type(error)(f"The engine of {task} is given up: {error}")
        self._exit()

    def _asked(self, number: signal.Signals) -> None:
        if self._asked_by is None:
            self._asked_by = number
            self.draining.is_on = True
            asyncio.get_running_loop().call_later(self._delay_s, self._exit)
        elif self._forced_by is None:
            self._forced_by = number
            self._exit()

    def _exit(self) -> None:
        self.draining.is_on = self._is_over = True
        self._end()

    def _end(self) -> None:
        if self._server is not None:
            self._server.should_exit |= self._is_over
            self._server.force_exit |= self._forced_by is not None


async def _watch(service: Service, loading: Loading, bound: Bound, announce: Announce) -> None:
    """Load what images need once every engine is up, and announce that all is ready."""
    while await service.unready():
        await asyncio.sleep(_READY_POLL_S)
    # Not beside the engines' start, which imports the same library in threads of its own.
    preloading = asyncio.create_task(in_own_thread(preload))
    try:
        await asyncio.wait({preloading})
    finally:
        preloading.cancel()
    if (error := preloading.exception()) is not None:
        _log.error("What images need cannot be loaded; texts are served.", exc_info=error)
    loading.is_on = False
    announce.ready(bound)
