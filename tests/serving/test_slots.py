"""Places that several are taken of at once."""

import asyncio

import pytest

from serving.engine.slots import Slots


def test_a_large_batch_is_not_passed_by_small_ones_that_came_later() -> None:
    async def scenario() -> list[str]:
        slots, order = Slots(4), list[str]()
        held = asyncio.Event()

        async def take(name: str, number: int) -> None:
            async with slots.taken(number):
                order.append(name)
                await held.wait()

        tasks = [asyncio.create_task(take("first", 2))]
        for name, number in (("large", 4), ("small", 1)):
            tasks.append(asyncio.create_task(take(name, number)))
            await asyncio.sleep(0)
        assert order == ["first"]
        held.set()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(scenario()) == ["first", "large", "small"]


def test_who_leaves_the_queue_or_fails_gives_places_back() -> None:
    async def scenario() -> None:
        slots = Slots(2)
        release = asyncio.Event()

        async def take(number: int) -> None:
            async with slots.taken(number):
                await release.wait()

        async def fail() -> None:
            async with slots.taken(2):
                raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            await fail()
        first = asyncio.create_task(take(1))
        gives_up = asyncio.create_task(take(2))
        await asyncio.sleep(0)
        gives_up.cancel()
        await asyncio.gather(gives_up, return_exceptions=True)
        assert gives_up.cancelled()
        async with asyncio.timeout(5), slots.taken(1):
            pass
        release.set()
        await first
        async with asyncio.timeout(5), slots.taken(2):
            pass

    asyncio.run(scenario())
