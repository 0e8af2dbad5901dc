"""Where use is counted: in this process, or in a Redis that several servers share.

`counters` are those of the `limits` library; `redis` is the client beneath them, for what they cannot do.
What is begun here is finished even if the request that began it is cancelled, so that it is always known
whether something was counted. While Redis does not answer, requests with limits are answered 503 within
`timeout_s` or so: limits fail closed. Does not know what is counted.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar
from urllib.parse import urlsplit

from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.errors import StorageError
from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from serving.errors import SettingsError
from serving.http.errors import HttpError

T = TypeVar("T")

KEY_PREFIX = "polyvec"
_MAX_CONNECTIONS = 32
_ACCEPTED = "memory://, redis://HOST:PORT/DB or rediss://HOST:PORT/DB"

logger = logging.getLogger(__name__)


class LimitsStorage:
    """Counters behind one URI; nothing is connected to before the first use.

    Args:
        uri: `memory://`, `redis://...` or `rediss://...`.
        timeout_s: how long Redis may take for one operation.

    Raises:
        SettingsError: the URI is none of these; the message repeats no part of it.
    """

    counters: Storage
    redis: Redis | None

    def __init__(self, uri: SecretStr, *, timeout_s: float = 1.0) -> None:
        self._timeout_s = timeout_s
        self._running: set[asyncio.Task[object]] = set()
        self._places = asyncio.Semaphore(_MAX_CONNECTIONS)
        self._quiet_until_s = 0.0
        self._answers = True
        value = uri.get_secret_value()
        match value.partition("://")[0]:
            case "memory":
                self.counters, self.redis, self._where = MemoryStorage(), None, "memory"
            case "redis" | "rediss":
                self.counters, self.redis, self._where = _open_redis(value, timeout_s)
            case _:
                raise SettingsError(f"limits_storage is none of {_ACCEPTED}.")

    async def check(self) -> None:
        """Count once, for nothing.

        Raises:
            SettingsError: Redis cannot be reached, or does not let these servers count.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self.counters.incr("check", 1, 1)
        except (StorageError, TimeoutError, TypeError) as error:
            # A TypeError is an option in the URI's query that the client does not have.
            raise SettingsError(
                f"Limits cannot be counted in the Redis of limits_storage ({self._where}): "
                f"{_reason(error)}. Start it, or correct limits_storage."
            ) from None  # what is below may hold the whole URI

    def start(self, operation: Coroutine[None, None, T]) -> asyncio.Task[T]:
        """Run `operation` to its end, whoever stops waiting for it."""
        task = asyncio.create_task(operation)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """What the storage answers to `question`, which is put when it is this one's turn.

        Raises:
            HttpError: 503, when it does not answer; whether it counted is then not known.
        """
        async with self._places:
            # Time spent waiting for a turn is ours, not Redis's; and who waits behind a question that had no
            # answer shall not put the same one, each for `timeout_s`.
            if time.monotonic() < self._quiet_until_s:
                raise _unavailable()
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await question()
            except (StorageError, RedisError, TimeoutError) as error:
                self._quiet_until_s = time.monotonic() + self._timeout_s
                if self._answers:
                    logger.warning("Limits cannot be counted: %s.", _reason(error))
                self._answers = False
                raise _unavailable() from None
            if not self._answers:
                logger.info("Limits can be counted again.")
            self._answers = True
            return answer

    async def close(self) -> None:
        """Finish what was begun, then close the connections."""
        await asyncio.gather(*self._running, return_exceptions=True)
        if self.redis is not None:
            await self.redis.aclose()
            await self.redis.connection_pool.disconnect()


def _unavailable() -> HttpError:
    return HttpError(
        503,
        "SERVICE_UNAVAILABLE",
        "The limits of this API key cannot be checked now. Try again.",
        retry_after_s=1,
        reason="LIMITS_UNAVAILABLE",
    )


def _open_redis(uri: str, timeout_s: float) -> tuple[Storage, Redis, str]:
    try:
        pool = BlockingConnectionPool.from_url(
            uri,
            max_connections=_MAX_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # Once, for connections that were left over when Redis was restarted. Not after a timeout: what
            # is slow may have been done.
            retry=Retry(NoBackoff(), 1, (RedisConnectionError,)),
        )
        parts = urlsplit(uri)
        where = f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
    except (ValueError, TypeError):
        raise SettingsError(
            f"limits_storage has a part that cannot be read. It is one of {_ACCEPTED}."
        ) from None  # what is below holds the URI, password and all
    counters = RedisStorage(
        "redis://",  # the pool knows where
        implementation="redispy",
        wrap_exceptions=True,
        key_prefix=KEY_PREFIX,
        connection_pool=pool,  # type: ignore[arg-type] # as its documentation says
    )
    return counters, Redis(connection_pool=pool), where


def _reason(error: BaseException) -> str:
    """What Redis or the network says; the client's own messages can hold options of the URI."""
    cause = error.storage_error if isinstance(error, StorageError) else error
    match cause:
        case TimeoutError():
            return "it did not answer in time"
        case RedisError():
            return f"{type(cause).__name__}: {cause}".rstrip(".")
        case _:
            return "an option after its '?' is not known"
