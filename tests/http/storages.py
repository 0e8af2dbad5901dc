from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.live import Live, live_server


@pytest.fixture(scope="session")
def live(merged_float32: Path) -> Iterator[Live]:
    """A server with fake engines and the default settings."""
    with live_server(merged_float32) as server:
        yield server
