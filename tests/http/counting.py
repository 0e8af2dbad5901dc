"""What tests of limits share: a storage for as long as a block lasts, callers, refusals, a clock."""

import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from serving.http.caller import Caller, Limits
from serving.http.errors import HttpError
from serving.http.limits_storage import LimitsStorage

MEMORY = SecretStr("memory://")
# Of a minute that has just begun.
START_S = 60.0 * 1_000_000


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def opened(uri: SecretStr, timeout_s: float = 5.0) -> AsyncIterator[LimitsStorage]:
    storage = LimitsStorage(uri, timeout_s=timeout_s)
    try:
        yield storage
    finally:
        await storage.close()


def caller(
    requests: int | None = None, tokens: int | None = None, concurrency: int | None = None
) -> Caller:
    """One that no other test counts for."""
    return Caller(uuid.uuid4().hex, Limits(requests, tokens, concurrency))


async def refused(attempt: Coroutine[None, None, object], status: int, code: str) -> HttpError:
    with pytest.raises(HttpError) as caught:
        await attempt
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s >= 1
    return caught.value
