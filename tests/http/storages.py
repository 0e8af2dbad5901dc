"""Fixtures for `pytest_plugins`: a Redis, started when a test first wants it, and every storage of limits."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.http.counting import MEMORY
from tests.http.redis_server import RedisServer, redis_server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that the test may stop."""
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def limits_uri(request: pytest.FixtureRequest) -> SecretStr:
    """Each storage in turn."""
    if request.param == "memory":
        return MEMORY
    server: RedisServer = request.getfixturevalue("redis")
    return server.uri
