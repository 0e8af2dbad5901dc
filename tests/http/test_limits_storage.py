import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from serving.errors import SettingsError
from serving.http.caller import ANONYMOUS
from serving.http.concurrency import Concurrency
from serving.http.errors import HttpError
from serving.http.limits import RateLimits
from serving.http.limits_storage import LimitsStorage
from tests.http.counting import caller, opened
from tests.http.redis_server import RedisServer, redis_server

pytest_plugins = ["tests.http.storages"]


def test_who_has_no_limit_is_not_counted_and_needs_no_storage(own_redis: RedisServer) -> None:
    async def main() -> None:
        own_redis.stop()
        async with opened(own_redis.uri) as storage:
            limits, places = RateLimits(storage), Concurrency(storage, lease_s=60)
            async with places.place(ANONYMOUS), limits.request(ANONYMOUS) as charge:
                await charge.tokens(10**12)
                assert charge.headers() == await limits.headers(ANONYMOUS) == {}

    asyncio.run(main())


def test_counters_in_redis_end_by_themselves(redis: RedisServer) -> None:
    async def main() -> None:
        who = caller(requests=5, tokens=5, concurrency=5)
        async with opened(redis.uri) as storage:
            limits, places = RateLimits(storage), Concurrency(storage, lease_s=60)

            async def fail() -> None:
                async with limits.request(who) as charge:
                    await charge.tokens(2)
                    raise ValueError("failed")

            with pytest.raises(ValueError, match="failed"):
                await fail()
            async with places.place(who), limits.request(who) as charge:
                await charge.tokens(3)
                with redis.client() as client:
                    ttls = [client.pttl(key) for key in client.scan_iter(f"*{who.name}*")]
        assert len(ttls) == 3
        assert all(0 < ttl <= 180_000 for ttl in ttls)

    asyncio.run(main())


@pytest.mark.parametrize("trouble", ["stop", "pause"])
def test_while_redis_is_away_requests_get_503_and_later_they_pass(
    own_redis: RedisServer, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def main() -> None:
        who = caller(requests=5, concurrency=5)
        async with opened(own_redis.uri, timeout_s=0.5) as storage:
            limits, places = RateLimits(storage), Concurrency(storage, lease_s=60)

            async def attempt() -> None:
                async with places.place(who), limits.request(who):
                    pass

            await attempt()
            own_redis.pause() if trouble == "pause" else own_redis.stop()
            # Together they wait once: 32 at a time, each for itself, would be 20 times longer.
            async with asyncio.timeout(8):
                for error in await asyncio.gather(
                    *(attempt() for _ in range(640)), return_exceptions=True
                ):
                    assert isinstance(error, HttpError)
                    assert (error.status, error.code) == (503, "SERVICE_UNAVAILABLE")
                    assert error.retry_after_s == 1
            own_redis.stop()
            own_redis.start()
            while True:
                try:
                    await attempt()
                    break
                except HttpError as error:
                    if error.status != 503:
                        raise
                    await asyncio.sleep(0.05)

    asyncio.run(main())
    assert caplog.text.count("Limits cannot be counted") >= 1
    assert "Limits can be counted again" in caplog.text


def test_redis_dying_between_charge_and_failure_hides_no_error(own_redis: RedisServer) -> None:
    async def main() -> None:
        who = caller(requests=5, concurrency=5)
        async with opened(own_redis.uri, timeout_s=0.2) as storage:
            limits, places = RateLimits(storage), Concurrency(storage, lease_s=60)

            async def fail_alone() -> None:
                async with places.place(who), limits.request(who):
                    own_redis.stop()
                    raise ValueError("mine")

            with pytest.raises(ValueError, match="mine"):
                await fail_alone()

    asyncio.run(main())


def test_a_storage_that_answers_is_accepted_at_the_start(limits_uri: SecretStr) -> None:
    async def main() -> None:
        async with opened(limits_uri) as storage:
            await storage.check()

    asyncio.run(main())


def test_a_redis_that_cannot_be_used_is_refused_at_the_start_without_its_password(
    tmp_path: Path,
) -> None:
    async def check(uri: str) -> str:
        async with opened(SecretStr(uri), timeout_s=0.5) as storage:
            with pytest.raises(SettingsError, match="limits_storage") as caught:
                await storage.check()
            return str(caught.value)

    with redis_server(tmp_path, password="swordfish") as server:
        host = f"127.0.0.1:{server.port}"
        messages = [
            asyncio.run(check(f"redis://:hunter2@{host}/0")),
            asyncio.run(check(f"redis://{host}/0")),
            asyncio.run(check(f"redis://:hunter2@{host}/0?hunter2=1")),
            asyncio.run(check(f"rediss://:swordfish@{host}/0")),
        ]
        server.stop()
        messages.append(asyncio.run(check(f"redis://:hunter2@{host}/0")))
    for message in messages:
        assert host in message
        assert "hunter2" not in message
        assert "swordfish" not in message


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "hunter2",
        "memcached://hunter2",
        "redis+cluster://:hunter2@127.0.0.1:1",
        "redis://:hunter2@127.0.0.1:port",
        "redis://:hunter2@127.0.0.1:1/0?socket_timeout=hunter2",
        "redis://:hunter2@[::1",
    ],
)
def test_another_storage_is_refused_by_what_is_accepted(uri: str) -> None:
    with pytest.raises(SettingsError, match="memory://, redis://") as caught:
        LimitsStorage(SecretStr(uri))
    assert "hunter2" not in str(caught.value)
