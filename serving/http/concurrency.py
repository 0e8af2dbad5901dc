"""Requests at once, for each caller.

In one process a count. In Redis, for the servers that share it, a lease a request: a server that died gives
its places back when their leases end. Does not know keys, or what a request does.
"""

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from redis.asyncio import Redis

from serving.http.caller import Caller
from serving.http.errors import HttpError
from serving.http.limits_storage import KEY_PREFIX, LimitsStorage

logger = logging.getLogger(__name__)

# KEYS: the caller's leases, by when they end. ARGV: the limit, a lease's length in ms, its name.
# The time is Redis's own, which all servers share.
_TAKE = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then
    return 0
end
redis.call('ZADD', KEYS[1], now_ms + ARGV[2], ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
"""


class Concurrency:
    """Places for requests.

    Args:
        storage: where places are counted.
        lease_s: longer than any request may hold its place; after it, a place that was never given back
            is free.
    """

    def __init__(self, storage: LimitsStorage, *, lease_s: float) -> None:
        self._storage = storage
        self._lease_ms = round(lease_s * 1000)
        self._held: Counter[str] = Counter()

    def place(self, caller: Caller) -> AbstractAsyncContextManager[None]:
        """Hold one of the caller's places in the block; given back however that is left.

        Entering raises HttpError: 429 RATE_CONCURRENCY_LIMIT_EXCEEDED; 503, while the storage does not answer.
        """
        limit = caller.limits.concurrency
        if limit is None:
            return nullcontext()
        if self._storage.redis is None:
            return self._counted(caller.name, limit)
        return self._leased(self._storage.redis, caller.name, limit)

    @asynccontextmanager
    async def _counted(self, name: str, limit: int) -> AsyncIterator[None]:
        if self._held[name] >= limit:
            raise _exceeded(limit)
        self._held[name] += 1
        try:
            yield
        finally:
            self._held[name] -= 1
            if not self._held[name]:
                del self._held[name]

    @asynccontextmanager
    async def _leased(self, redis: Redis, name: str, limit: int) -> AsyncIterator[None]:
        key, lease = f"{KEY_PREFIX}:concurrency/{name}", uuid.uuid4().hex
        # Finished even when we are cancelled here, and given back after that.
        take = self._storage.start(self._take(redis, key, lease, limit))
        try:
            if not await asyncio.shield(take):
                raise _exceeded(limit)
            yield
        finally:
            await asyncio.shield(self._storage.start(self._give_back(redis, key, lease, take)))

    async def _take(self, redis: Redis, key: str, lease: str, limit: int) -> bool:
        script = redis.register_script(_TAKE)
        taken: int = await self._storage.ask(
            lambda: script(keys=[key], args=[limit, self._lease_ms, lease])
        )
        return taken == 1

    async def _give_back(
        self, redis: Redis, key: str, lease: str, take: asyncio.Task[bool]
    ) -> None:
        await asyncio.wait([take])
        if not take.cancelled() and take.exception() is None and not take.result():
            return  # refused
        try:
            await self._storage.ask(lambda: redis.zrem(key, lease))
        except HttpError:
            # Why is in the log already.
            logger.warning("A place stays taken until its lease ends: the limits' storage is away.")


def _exceeded(limit: int) -> HttpError:
    return HttpError(
        429,
        "RATE_CONCURRENCY_LIMIT_EXCEEDED",
        f"This API key may have {limit} requests at once, and has them. Wait for one to be answered.",
        retry_after_s=1,
    )
