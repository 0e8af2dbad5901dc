import asyncio

import anyio
import pytest
from pydantic import SecretStr

from serving.http.caller import Caller
from serving.http.errors import HttpError
from serving.http.limits import RateLimits
from serving.http.limits_storage import LimitsStorage
from serving.http.limits_window import LimitKind
from tests.http.counting import MEMORY, START_S, Clock, caller, opened, refused
from tests.http.redis_server import RedisServer

pytest_plugins = ["tests.http.storages"]


async def use(limits: RateLimits, who: Caller, num_tokens: int = 0) -> None:
    async with limits.request(who) as charge:
        await charge.tokens(num_tokens)


async def fail(limits: RateLimits, who: Caller, error: Exception, *num_tokens: int) -> None:
    async with limits.request(who) as charge:
        for count in num_tokens:
            await charge.tokens(count)
        raise error


async def left(limits: RateLimits, who: Caller, kind: LimitKind = LimitKind.REQUESTS) -> int:
    return int((await limits.headers(who))[f"X-RateLimit-Remaining-{kind}"])


def test_as_many_requests_as_allowed_pass_and_the_next_is_429(limits_uri: SecretStr) -> None:
    async def main() -> None:
        clock, who = Clock(), caller(requests=3)
        clock.now_s += 20
        async with opened(limits_uri) as storage:
            limits = RateLimits(storage, clock=clock)
            for _ in range(3):
                await use(limits, who)
            error = await refused(use(limits, who), 429, "RATE_REQUEST_LIMIT_EXCEEDED")
            assert error.headers == {
                "X-RateLimit-Limit-Requests": "3",
                "X-RateLimit-Remaining-Requests": "0",
                "X-RateLimit-Reset-Requests": "100",
            }
            assert error.retry_after_s is not None
            clock.now_s += error.retry_after_s
            await use(limits, who)

    asyncio.run(main())


def test_tokens_are_counted_and_what_is_refused_is_not(limits_uri: SecretStr) -> None:
    async def main() -> None:
        who = caller(requests=100, tokens=1000)
        async with opened(limits_uri) as storage:
            limits = RateLimits(storage, clock=Clock())
            await use(limits, who, 600)
            await refused(use(limits, who, 401), 429, "RATE_TOKEN_LIMIT_EXCEEDED")
            await use(limits, who, 400)
            await refused(use(limits, who, 1), 429, "RATE_TOKEN_LIMIT_EXCEEDED")
            assert await left(limits, who, LimitKind.TOKENS) == 0
            # The refused requests are given back as requests too.
            assert await left(limits, who) == 98

    asyncio.run(main())


def test_more_tokens_than_a_minute_allows_are_said_to_never_pass(limits_uri: SecretStr) -> None:
    async def main() -> None:
        who = caller(requests=5, tokens=10)
        async with opened(limits_uri) as storage:
            limits = RateLimits(storage, clock=Clock())
            error = await refused(use(limits, who, 11), 429, "RATE_TOKEN_LIMIT_EXCEEDED")
            assert "never" in error.detail
            assert error.headers["X-Should-Retry"] == "false"
            assert await left(limits, who) == 5
            await use(limits, who, 10)

    asyncio.run(main())


def test_requests_at_once_never_exceed_a_limit(limits_uri: SecretStr) -> None:
    async def main() -> None:
        who = caller(requests=20)
        async with opened(limits_uri) as storage:
            limits = RateLimits(storage, clock=Clock())
            outcomes = await asyncio.gather(
                *(use(limits, who) for _ in range(50)), return_exceptions=True
            )
            assert outcomes.count(None) == 20
            assert await left(limits, who) == 0

    asyncio.run(main())


def test_tokens_of_requests_at_once_never_exceed_a_limit(limits_uri: SecretStr) -> None:
    async def main() -> None:
        who = caller(tokens=32)
        async with opened(limits_uri) as storage:
            limits = RateLimits(storage, clock=Clock())
            outcomes = await asyncio.gather(
                *(use(limits, who, 3) for _ in range(50)), return_exceptions=True
            )
            assert outcomes.count(None) == 10
            # What was refused left nothing behind.
            assert await left(limits, who, LimitKind.TOKENS) == 2
            await use(limits, who, 2)

    asyncio.run(main())


def test_servers_with_one_redis_share_a_limit(redis: RedisServer) -> None:
    async def main() -> None:
        who = caller(tokens=200)
        async with opened(redis.uri) as one, opened(redis.uri) as other:
            clock = Clock()
            servers = [RateLimits(one, clock=clock), RateLimits(other, clock=clock)]
            outcomes = await asyncio.gather(
                *(use(server, who, 10) for server in servers for _ in range(25)),
                return_exceptions=True,
            )
            assert outcomes.count(None) == 20
            assert [await left(server, who, LimitKind.TOKENS) for server in servers] == [0, 0]

    asyncio.run(main())


@pytest.mark.parametrize("error", [ValueError("broken"), HttpError(422, "X", "bad")])
def test_a_failed_request_is_not_charged(limits_uri: SecretStr, error: Exception) -> None:
    async def main() -> None:
        who = caller(requests=2, tokens=10)
        async with opened(limits_uri) as storage:
            limits = RateLimits(storage, clock=Clock())
            for _ in range(5):
                with pytest.raises(type(error)):
                    await fail(limits, who, error, 4, 6)
            assert (await left(limits, who), await left(limits, who, LimitKind.TOKENS)) == (2, 10)

    asyncio.run(main())


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 100])
def test_a_request_cancelled_at_any_moment_is_not_charged(
    limits_uri: SecretStr, turns: int
) -> None:
    async def main() -> None:
        who = caller(requests=5, tokens=50)

        async def hang() -> None:
            async with limits.request(who) as charge:
                await charge.tokens(30)
                await asyncio.Event().wait()

        async with opened(limits_uri) as storage:
            limits = RateLimits(storage, clock=Clock())
            task = asyncio.create_task(hang())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with opened(limits_uri) as again:
            # Memory forgets with its storage, so that one is asked itself.
            limits = limits if limits_uri is MEMORY else RateLimits(again, clock=Clock())
            assert (await left(limits, who), await left(limits, who, LimitKind.TOKENS)) == (5, 50)

    asyncio.run(main())


def test_a_cancelled_scope_does_not_keep_a_charge_from_being_given_back(
    limits_uri: SecretStr,
) -> None:
    async def main() -> None:
        who = caller(requests=5)
        async with opened(limits_uri) as storage:
            limits = RateLimits(storage, clock=Clock())
            with anyio.CancelScope() as scope:
                async with limits.request(who):
                    scope.cancel()
                    await anyio.sleep(60)
            assert scope.cancelled_caught
            await storage.close()  # waits for what goes on behind the cancelled scope
            assert await left(limits, who) == 5

    asyncio.run(main())


def test_what_was_used_fades_over_the_next_minute(limits_uri: SecretStr) -> None:
    async def main() -> None:
        clock, who = Clock(), caller(tokens=100)
        async with opened(limits_uri) as storage:
            limits = RateLimits(storage, clock=clock)
            await use(limits, who, 100)
            clock.now_s = START_S + 59
            assert await left(limits, who, LimitKind.TOKENS) == 0
            clock.now_s = START_S + 90
            assert await left(limits, who, LimitKind.TOKENS) == 50
            await refused(use(limits, who, 51), 429, "RATE_TOKEN_LIMIT_EXCEEDED")
            await use(limits, who, 50)
            clock.now_s = START_S + 180
            assert await left(limits, who, LimitKind.TOKENS) == 100

    asyncio.run(main())


@pytest.mark.parametrize("late_s", [30, 60, 119, 120, 600])
def test_what_is_given_back_late_is_never_more_than_was_taken(
    limits_uri: SecretStr, late_s: float
) -> None:
    async def main() -> None:
        clock, who = Clock(), caller(requests=3)
        async with opened(limits_uri) as storage:
            limits = RateLimits(storage, clock=clock)

            async def fail_late() -> None:
                async with limits.request(who):
                    clock.now_s += late_s
                    raise ValueError("late")

            with pytest.raises(ValueError, match="late"):
                await fail_late()
            for _ in range(3):
                await use(limits, who)
            await refused(use(limits, who), 429, "RATE_REQUEST_LIMIT_EXCEEDED")

    asyncio.run(main())


def test_giving_back_what_the_storage_forgot_adds_no_quota(limits_uri: SecretStr) -> None:
    async def main() -> None:
        who = caller(tokens=30)
        async with opened(limits_uri) as storage:
            limits = RateLimits(storage, clock=Clock())

            async def fail_later() -> None:
                async with limits.request(who) as charge:
                    await charge.tokens(10)
                    ready.release()
                    await forgotten.wait()
                    raise ValueError

            ready, forgotten = asyncio.Semaphore(0), asyncio.Event()
            tasks = [asyncio.create_task(fail_later()) for _ in range(3)]
            for _ in tasks:
                await ready.acquire()
            await _forget(storage)
            forgotten.set()
            await asyncio.gather(*tasks, return_exceptions=True)
            await use(limits, who, 30)
            await refused(use(limits, who, 1), 429, "RATE_TOKEN_LIMIT_EXCEEDED")

    asyncio.run(main())


async def _forget(storage: LimitsStorage) -> None:
    if storage.redis is None:
        await storage.counters.reset()
    else:
        await storage.redis.flushall()


def test_a_charge_knows_the_headers_without_asking_again(limits_uri: SecretStr) -> None:
    async def main() -> None:
        who = caller(requests=5, tokens=100)
        async with opened(limits_uri) as storage:
            limits = RateLimits(storage, clock=Clock())
            async with limits.request(who) as charge:
                await charge.tokens(30)
                assert charge.headers() == await limits.headers(who)
            assert charge.headers() == {
                "X-RateLimit-Limit-Requests": "5",
                "X-RateLimit-Remaining-Requests": "4",
                "X-RateLimit-Reset-Requests": "120",
                "X-RateLimit-Limit-Tokens": "100",
                "X-RateLimit-Remaining-Tokens": "70",
                "X-RateLimit-Reset-Tokens": "120",
            }

    asyncio.run(main())
