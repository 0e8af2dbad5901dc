"""Images prepared in processes: the same patches, and a decoder that crashes takes nobody along."""

import asyncio
import functools
import io
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from serving.engine.bounds import PromptBounds
from serving.engine.imaging import pool as pool_module
from serving.engine.imaging.pool import ImagePool, num_processes
from serving.engine.imaging.preparing import Job, Rules, prepare
from serving.engine.protocol import ImagePrompt
from serving.errors import EngineError, EngineStoppedError, InputError
from serving.images import ImageLimits
from serving.manifest import ImageSpec

SPEC = ImageSpec(
    patch_size=14, merge_size=2, min_pixels=3136, max_pixels=602_112, max_aspect_ratio=200
)
RULES = Rules(
    SPEC,
    ImageLimits(max_bytes=10**7, max_decoded_pixels=10**8, max_aspect_ratio=200),
    PromptBounds(max_tokens=1000, max_image_tokens=768, vocabulary=1000),
)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """`test` as a plain function."""

    @functools.wraps(test)
    def call(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return call


class Crash:
    """Ends the process that reads it, as a decoder would on a bad day."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os._exit, (1,)


def png(width: int, height: int, seed: int = 0) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def prompt(source: Any) -> ImagePrompt:
    return ImagePrompt((1, 2, 3), source, SPEC.min_pixels, SPEC.max_pixels)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IMAGES_BEFORE_PROCESSES", 0)


async def warmed(pool: ImagePool) -> ImagePool:
    async with pool.patches(prompt(png(30, 30))):
        pass
    async with asyncio.timeout(60):
        while not pool.is_warm:
            await asyncio.sleep(0.05)
    return pool


@asynccontextmanager
async def opened(processes: int = 1, max_images: int = 8) -> AsyncIterator[ImagePool]:
    pool = ImagePool(RULES, processes=processes, max_images=max_images)
    try:
        yield pool
    finally:
        pool.close()


@in_loop
async def test_patches_from_processes_are_those_of_this_one(tmp_path: Path) -> None:
    sources = [png(100 + 37 * seed, 300 - 17 * seed, seed) for seed in range(8)]
    path = tmp_path / "page.png"
    path.write_bytes(sources[0])
    async with opened(processes=2) as pool:
        await warmed(pool)

        async def check(source: bytes | Path) -> None:
            async with pool.patches(prompt(source)) as patches:
                # Others write to their slots meanwhile.
                await asyncio.sleep(0.05)
                expected = prepare(Job.of(prompt(source)), RULES)
                assert patches.grid == expected.grid
                assert torch.equal(patches.values, expected.values)

        await asyncio.gather(*map(check, sources))
        await check(path)


@in_loop
async def test_errors_of_an_image_come_back_as_they_are() -> None:
    async with opened() as pool:
        await warmed(pool)
        for source, message in (
            (b"no image", "not an image"),
            (png(200, 200)[:500], "damaged or truncated"),
            (Path("/nowhere/page.png"), "cannot be read"),
            (png(1000, 2), "aspect ratio"),
        ):
            with pytest.raises(InputError, match=message):
                async with pool.patches(prompt(source)):
                    pass


@in_loop
async def test_an_image_that_crashes_its_decoder_is_refused_and_the_next_is_prepared() -> None:
    async with opened() as pool:
        await warmed(pool)
        others = [asyncio.create_task(_prepared(pool, png(400, 400, seed))) for seed in range(4)]
        with pytest.raises(InputError, match="ended, twice"):
            async with pool.patches(prompt(Crash())):
                pass
        expected = [prepare(Job.of(prompt(png(400, 400, seed))), RULES) for seed in range(4)]
        for found, right in zip(await asyncio.gather(*others), expected, strict=True):
            assert torch.equal(found, right.values)
        await warmed(pool)


@in_loop
async def test_images_beside_a_crash_share_one_process_that_prepares_them_again() -> None:
    async with opened(processes=2, max_images=12) as pool:
        await warmed(pool)
        made: list[int] = []
        new_executor = pool._new_executor

        def counted(processes: int) -> ProcessPoolExecutor:
            made.append(processes)
            return new_executor(processes)

        pool._new_executor = counted  # type: ignore[method-assign]
        tasks = [asyncio.create_task(_prepared(pool, png(900, 900, seed))) for seed in range(8)]
        crash = asyncio.create_task(_prepared(pool, Crash()))
        results = await asyncio.gather(*tasks, crash, return_exceptions=True)
        assert isinstance(results.pop(), InputError)
        for seed, found in enumerate(results):
            assert isinstance(found, torch.Tensor)
            assert torch.equal(found, prepare(Job.of(prompt(png(900, 900, seed))), RULES).values)
        # One until the crash is there again, and one for those after it.
        assert 1 <= made.count(1) <= 2
        assert sorted(pool._free) == list(range(12))


@in_loop
async def test_where_no_process_can_be_started_a_thread_prepares_and_nobody_writes_over_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = png(400, 400, 1)
    right = prepare(Job.of(prompt(small)), RULES).values
    async with opened(max_images=1) as pool:
        await warmed(pool)
        executor = pool._executor
        assert executor is not None
        submit = executor.submit

        def queued_all_the_same(*args: Any) -> None:
            submit(*args)
            raise BlockingIOError(11, "Resource temporarily unavailable")

        with monkeypatch.context() as patched:
            patched.setattr(executor, "submit", queued_all_the_same)
            assert torch.equal(await _prepared(pool, png(1800, 1800)), _large())
        # The process still writes to the only slot, which is nobody's any more.
        assert not pool.has_room
        async with pool.patches(prompt(small)) as patches:
            await asyncio.get_running_loop().run_in_executor(None, submit(os.getpid).result)
            assert torch.equal(patches.values, right)
        assert not pool.has_room
        # With its last place gone, threads prepare all, and nothing is left running for nobody.
        assert not pool.is_warm
        assert torch.equal(await _prepared(pool, small), right)


@in_loop
async def test_a_process_that_had_ended_already_says_nothing_of_the_next_image() -> None:
    async with opened(processes=2, max_images=12) as pool:
        await warmed(pool)
        crash = asyncio.create_task(_prepared(pool, Crash()))
        tasks = [asyncio.create_task(_prepared(pool, png(900, 900, seed))) for seed in range(6)]
        async with asyncio.timeout(60):
            while pool._quarantine is None:
                await asyncio.sleep(0.001)
            while (quarantine := pool._quarantine) is not None:
                for process in tuple(quarantine.started):
                    process.kill()
                await asyncio.sleep(0.05)
        results = await asyncio.gather(crash, *tasks, return_exceptions=True)
        # Killed under an image, it was that image's fault as far as anybody can tell; between two, nobody's.
        assert all(isinstance(result, (InputError, torch.Tensor)) for result in results)
        assert sorted(pool._free) == list(range(12))


@in_loop
async def test_after_a_crash_without_another_process_the_engine_is_to_blame() -> None:
    async with opened() as pool:
        await warmed(pool)

        def refuse(_: int) -> ProcessPoolExecutor:
            executor = ProcessPoolExecutor(1)

            def submit(*_: Any) -> None:
                raise BlockingIOError(11, "Resource temporarily unavailable")

            executor.submit = submit  # type: ignore[assignment, method-assign]
            return executor

        pool._new_executor = refuse  # type: ignore[method-assign]
        with pytest.raises(EngineError, match="Try again"):
            await _prepared(pool, Crash())
        # None could have been started that writes to it.
        assert sorted(pool._free) == list(range(8))


@in_loop
async def test_a_caller_that_leaves_does_not_write_into_anothers_pixels() -> None:
    large, small = png(1800, 1800), png(400, 400, 1)
    right = prepare(Job.of(prompt(small)), RULES)
    async with opened(processes=2, max_images=1) as pool:
        await warmed(pool)
        # The second process is up before the race.
        await asyncio.gather(_prepared(pool, png(900, 900)), _prepared(pool, png(900, 900)))
        left = asyncio.create_task(_prepared(pool, large))
        await asyncio.sleep(0.05)
        left.cancel()
        await asyncio.sleep(0)
        async with pool.patches(prompt(small)) as patches:
            async with asyncio.timeout(30):
                while not pool.has_room:
                    await asyncio.sleep(0.01)
            assert torch.equal(patches.values, right.values)
        assert torch.equal(await _prepared(pool, small), right.values)


@in_loop
async def test_a_crash_beside_callers_that_left_holds_nobody_up() -> None:
    async with opened() as pool:
        await warmed(pool)
        tasks = [asyncio.create_task(_prepared(pool, png(900, 900, seed))) for seed in range(7)]
        crash = asyncio.create_task(_prepared(pool, Crash()))
        await asyncio.sleep(0.02)
        for task in tasks[2::2]:
            task.cancel()
        async with asyncio.timeout(60):
            results = await asyncio.gather(*tasks, crash, return_exceptions=True)
            while not pool.has_room:
                await asyncio.sleep(0.01)
        assert isinstance(results[-1], InputError)
        assert all(isinstance(result, torch.Tensor) for result in results[1:-1:2])


@in_loop
async def test_without_processes_threads_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(pool_module.SharedSlots, "create", refuse)
    async with opened() as pool:
        for _ in range(3):
            assert len(await _prepared(pool, png(300, 200))) == 4 * 7 * 11
        assert not pool.is_warm


@in_loop
async def test_closing_leaves_no_process_and_refuses_what_is_on_its_way() -> None:
    before = set(_workers())
    async with opened() as pool:
        await warmed(pool)
        tasks = [asyncio.create_task(_prepared(pool, png(900, 900, seed))) for seed in range(8)]
        await asyncio.sleep(0.01)
        pool.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert any(isinstance(result, EngineStoppedError) for result in results)
        assert all(isinstance(result, (EngineStoppedError, torch.Tensor)) for result in results)
        with pytest.raises(EngineStoppedError):
            await _prepared(pool, png(30, 30))
        async with asyncio.timeout(10):
            while set(_workers()) - before:
                await asyncio.sleep(0.05)


@in_loop
async def test_few_images_and_decoded_ones_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IMAGES_BEFORE_PROCESSES", 2)
    async with opened() as pool:
        image = Image.new("RGB", (300, 200), "red")
        for _ in range(5):
            assert len(await _prepared(pool, image)) == 4 * 7 * 11
        assert not pool.is_warm
    async with opened(processes=0) as pool:
        for _ in range(5):
            await _prepared(pool, png(30, 30))
        assert not pool.is_warm


def test_every_core_but_one_prepares_images_up_to_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    for num_cores, processes in ((1, 0), (2, 0), (3, 2), (64, 8)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=num_cores: set(range(n)))
        assert num_processes(None) == processes
    assert num_processes(0) == 0
    assert num_processes(5) == 5


def _large() -> torch.Tensor:
    return prepare(Job.of(prompt(png(1800, 1800))), RULES).values


def _workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "resource_tracker" not in "".join(child.cmdline()):
                found.append(child)
    return found


async def _prepared(pool: ImagePool, source: Any) -> torch.Tensor:
    async with pool.patches(prompt(source)) as patches:
        return patches.values.clone()
