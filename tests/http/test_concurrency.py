import asyncio

import anyio
import pytest
from pydantic import SecretStr

from serving.http.caller import Caller
from serving.http.concurrency import Concurrency
from serving.http.errors import HttpError
from tests.http.counting import caller, opened, refused
from tests.http.redis_server import RedisServer

pytest_plugins = ["tests.http.storages"]


async def _hold(
    places: Concurrency, who: Caller, held: asyncio.Semaphore, end: asyncio.Event
) -> None:
    async with places.place(who):
        held.release()
        await end.wait()


async def _try(places: Concurrency, who: Caller) -> None:
    async with places.place(who):
        pass


def test_as_many_requests_at_once_as_allowed_have_a_place(limits_uri: SecretStr) -> None:
    async def main() -> None:
        who, other = caller(concurrency=2), caller(concurrency=1)
        held, end = asyncio.Semaphore(0), asyncio.Event()
        async with opened(limits_uri) as storage:
            places = Concurrency(storage, lease_s=60)
            tasks = [asyncio.create_task(_hold(places, who, held, end)) for _ in range(2)]
            for _ in tasks:
                await held.acquire()
            error = await refused(_try(places, who), 429, "RATE_CONCURRENCY_LIMIT_EXCEEDED")
            assert error.retry_after_s == 1
            await _try(places, other)
            end.set()
            await asyncio.gather(*tasks)
            await _try(places, who)

    asyncio.run(main())


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 100])
def test_a_place_is_free_however_the_request_ends(limits_uri: SecretStr, turns: int) -> None:
    async def main() -> None:
        who = caller(concurrency=1)
        async with opened(limits_uri) as storage:
            places = Concurrency(storage, lease_s=60)
            with pytest.raises(ValueError, match="broken"):
                async with places.place(who):
                    raise ValueError("broken")
            task = asyncio.create_task(_hold(places, who, asyncio.Semaphore(0), asyncio.Event()))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with anyio.CancelScope() as scope:
                async with places.place(who):
                    scope.cancel()
                    await anyio.sleep(60)
            await storage.close()  # waits for what goes on behind the cancelled scope
            await _try(places, who)

    asyncio.run(main())


def test_servers_with_one_redis_share_places(redis: RedisServer) -> None:
    async def main() -> None:
        who = caller(concurrency=5)
        held, end = asyncio.Semaphore(0), asyncio.Event()
        async with opened(redis.uri) as one, opened(redis.uri) as other:
            servers = [Concurrency(one, lease_s=60), Concurrency(other, lease_s=60)]
            tasks = [
                asyncio.create_task(_hold(server, who, held, end))
                for server in servers
                for _ in range(10)
            ]
            done, holding = await asyncio.wait(tasks, timeout=0.5)
            while len(done) < 15:
                done, holding = await asyncio.wait(tasks, timeout=0.1)
            assert len(holding) == 5
            end.set()
            await asyncio.gather(*holding)
            await _try(servers[0], who)

    asyncio.run(main())


def test_places_of_a_server_that_died_come_back_when_their_leases_end(
    redis: RedisServer,
) -> None:
    async def main() -> None:
        who = caller(concurrency=2)
        async with opened(redis.uri) as dying, opened(redis.uri) as living:
            places = Concurrency(living, lease_s=60)
            async with places.place(who):
                # What a dead server leaves: a place that is never given back.
                lost = Concurrency(dying, lease_s=0.3).place(who)
                await lost.__aenter__()
                await refused(_try(places, who), 429, "RATE_CONCURRENCY_LIMIT_EXCEEDED")
                while True:
                    try:
                        await _try(places, who)
                        break
                    except HttpError as error:
                        if error.status != 429:
                            raise
                        await asyncio.sleep(0.05)
                # Given back after its end, it takes no place from another.
                async with places.place(who):
                    await lost.__aexit__(None, None, None)
                    await refused(_try(places, who), 429, "RATE_CONCURRENCY_LIMIT_EXCEEDED")

    asyncio.run(main())
