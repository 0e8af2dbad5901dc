"""One server for all clients, with keys, an image to fetch, and the Python API over the same engines."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serving import Embedder, ServerSettings
from serving.engine.fake import FakeEngine
from serving.http.caller import UNLIMITED, Limits
from serving.http.key_file import add_key
from serving.manifest import find_tasks
from tests.conftest import Golden
from tests.http.live import live_server

MODEL = "jina-embeddings-v4"


@dataclass(frozen=True, slots=True)
class Served:
    """A running server, as its users know it.

    Attributes:
        url: without a path.
        key: without limits.
        single_use_key: of one request a minute.
        image_url: where the server may fetch `image`.
        image: the file behind it.
    """

    url: str
    key: str
    single_use_key: str
    image_url: str
    image: Path


@pytest.fixture(scope="session")
def served(
    merged_float32: Path, golden: Golden, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    key = add_key(keys, "alice", UNLIMITED)
    single_use_key = add_key(keys, "bob", Limits(requests_per_minute=1))
    settings = ServerSettings(port=0, keys=keys, fetch_private_networks=("127.0.0.0/8",))
    image = golden.images[1]
    with _page(image.read_bytes()) as image_url, live_server(merged_float32, settings) as live:
        # vLLM loads what resizes images when it starts, the fake engine at its first image, which then
        # takes longer than some of these clients wait.
        body = {"model": MODEL, "input": {"url": image_url}}
        headers = {"Authorization": f"Bearer {key}"}
        live.client.post("/v1/embeddings", json=body, headers=headers).raise_for_status()
        yield Served(live.url, key, single_use_key, image_url, image)


@pytest.fixture(scope="session")
def api(merged_float32: Path) -> Iterator[Embedder]:
    """What every client must get, bit for bit."""
    directories = find_tasks(merged_float32)
    engines = {task: FakeEngine(path) for task, path in directories.items()}
    with Embedder.from_engines(directories, engines) as embedder:
        yield embedder


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients read the environment; the server is on loopback whatever it says."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("JINA_API_KEY", "JINA_AUTH_TOKEN", "OPENAI_API_KEY", "COHERE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def _page(content: bytes) -> Iterator[str]:
    """A web server with one image, within the block; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/page.png"
        finally:
            server.shutdown()
            thread.join()
