from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http.live import MODEL, Embed, Live, live_server
from tests.http.oracle import Oracle


@pytest.fixture(scope="session")
def live(merged_float32: Path) -> Iterator[Live]:
    """A server with fake engines and the default settings."""
    with live_server(merged_float32) as server:
        yield server


@pytest.fixture(scope="session")
def oracle(merged_float32: Path) -> Oracle:
    """What the fake engines' vectors have to be; all tasks have one tokenizer."""
    return Oracle(merged_float32 / "retrieval")


@pytest.fixture
def embed(live: Live) -> Embed:
    """Posts to `/v1/embeddings` what has to be answered with 200."""

    def post(**body: Any) -> Any:
        answer = live.client.post("/v1/embeddings", json={"model": MODEL, **body})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    return post
