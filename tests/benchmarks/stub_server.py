"""A small server that answers as `polyvec serve` is to: for tests of what measures it.

Its vectors are a hash of the text. A child process with an engine's name stands for the engine: while it
is dead, requests are answered 503. At most `--places` requests are worked on or wait; more get 503.
"""

import argparse
import asyncio
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import uvicorn

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_CHILD = "import sys; sys.stdin.read()"


class Stub:
    def __init__(self, seconds: float, places: int, restart_s: float, wrong: bool) -> None:
        self.seconds = seconds
        self.places = places
        self.restart_s = restart_s
        self.wrong_after_restart = wrong
        self.wrong = False
        self.taken = 0
        self.one_at_a_time = asyncio.Semaphore(1)
        self.engine = start_engine()
        self.died_at: float | None = None

    def alive(self) -> bool:
        if self.engine.poll() is None:
            return True
        if self.died_at is None:
            self.died_at = time.monotonic()
        if time.monotonic() - self.died_at >= self.restart_s:
            self.engine, self.died_at = start_engine(), None
            self.wrong = self.wrong_after_restart
            return True
        return False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/health/ready":
            await answer(send, 200 if self.alive() else 503, {})
            return
        body = await read(receive)
        if body is None:
            return
        if self.taken >= self.places or not self.alive():
            await answer(send, 503, {"detail": "full"})
            return
        self.taken += 1
        try:
            gone = asyncio.create_task(disconnected(receive))
            async with self.one_at_a_time:
                if not gone.done():
                    await asyncio.sleep(self.seconds)
            gone.cancel()
        finally:
            self.taken -= 1
        await answer(send, 200 if self.alive() else 503, self.document(json.loads(body)))

    def document(self, request: dict[str, Any]) -> dict[str, Any]:
        data = [
            {"index": at, "object": "embedding", "embedding": vector(text, self.wrong)}
            for at, text in enumerate(request["input"])
        ]
        tokens = sum(len(text.split()) for text in request["input"])
        return {"object": "list", "data": data, "usage": {"prompt_tokens": tokens}}


def start_engine() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        ["VLLM::EngineCore", "-c", _CHILD], executable=sys.executable, stdin=subprocess.PIPE
    )


def vector(text: str, wrong: bool) -> list[float]:
    digest = hashlib.sha256((text + "wrong" * wrong).encode()).digest()
    return [value / 2**31 - 1 for value in struct.unpack("<8I", digest)]


async def read(receive: Receive) -> bytes | None:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer(send: Send, status: int, document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own would end the process by the signal once more, so that its status is not 0.
        yield


async def serve(options: argparse.Namespace) -> None:
    stub = Stub(options.seconds, options.places, options.restart_s, options.wrong_after_restart)
    config = uvicorn.Config(
        stub, port=options.port, log_level="error", timeout_graceful_shutdown=10
    )
    server = Server(config)

    def leave() -> None:
        if options.abrupt:
            stub.engine.kill()
            os._exit(1)
        server.should_exit = True

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave)
    try:
        await server.serve()
    finally:
        stub.engine.kill()
        stub.engine.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.005, help="work on one request")
    parser.add_argument("--places", type=int, default=20)
    parser.add_argument("--restart-s", type=float, default=0.5)
    parser.add_argument("--wrong-after-restart", action="store_true")
    parser.add_argument("--abrupt", action="store_true", help="end at once on SIGTERM")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
