"""Processes that prepare images while this one serves; patches come back through shared memory.

In threads of this process, decoding would take turns with the event loop at the interpreter's lock, and a
decoder that crashes would take the server with it. A process takes seconds to start, so the first images,
and those that are decoded already, are prepared in threads. Knows no vLLM.
"""

import asyncio
import math
import os
from collections.abc import AsyncIterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from PIL import Image

from serving.engine.environment import children_without_main
from serving.engine.imaging.memory import SharedSlots
from serving.engine.imaging.patches import Grid, Patches, values_of_patch
from serving.engine.imaging.preparing import (
    Job,
    Rules,
    in_slot,
    prepare,
    prepare_in_slot,
    set_up,
)
from serving.engine.protocol import ImagePrompt
from serving.errors import EngineStoppedError, InputError

IMAGES_BEFORE_PROCESSES = 16
"""Whoever embeds a few images does not wait for processes, nor pay for them."""


def num_processes(asked: int | None) -> int:
    """`asked`, or one for each core but the one that serves.

    None on two cores: there, with one for the engine, processes only took turns with the threads they
    replace (benchmarks/README.md, "Images").
    """
    if asked is not None:
        return asked
    num_cores = len(os.sched_getaffinity(0))
    return num_cores - 1 if num_cores > 2 else 0


@dataclass(slots=True)
class _Slot:
    """A slot that is taken.

    Attributes:
        number: which.
        written_by: the last that was asked to write to it.
    """

    number: int
    written_by: "Future[Grid] | None" = None

    def give_back(self, free: list[int]) -> None:
        """Let others have it as soon as nobody writes to it any more.

        A caller may leave while a process still prepares its image; what that writes must not become
        another's pixels.
        """
        if self.written_by is None:
            free.append(self.number)
        else:
            self.written_by.add_done_callback(lambda _: free.append(self.number))


class ImagePool:
    """Prepares images for one engine.

    Args:
        rules: what holds for all images.
        processes: at most so many are started, one by one as they are needed; 0 uses threads alone.
        max_images: prepared and held at once; the caller sees to it that there are no more.
    """

    def __init__(self, rules: Rules, *, processes: int, max_images: int) -> None:
        self._rules = rules
        self._processes = processes
        self._max_images = max_images
        spec = rules.spec
        patches_per_token = spec.merge_size**2
        self._slot_bytes = (
            math.ceil(
                rules.bounds.max_image_tokens * patches_per_token * values_of_patch(spec) / 4096
            )
            * 4096
        )
        self._num_seen = 0
        self._memory: SharedSlots | None = None
        self._free = list(range(max_images))
        self._executor: ProcessPoolExecutor | None = None
        self._warm: Future[object] | None = None
        self._closed = False

    @asynccontextmanager
    async def patches(self, prompt: ImagePrompt) -> AsyncIterator[Patches]:
        """The patches of `prompt`'s image, until the block is left.

        Raises:
            InputError: the image cannot be decoded, or is too large for the engine.
            EngineStoppedError: the pool was closed.
        """
        job = Job.of(prompt)
        self._num_seen += 1
        if self._closed:
            raise _stopped()
        slot = None if isinstance(job.source, Image.Image) else self._take_slot()
        if slot is None:
            yield await asyncio.to_thread(prepare, job, self._rules)
            return
        try:
            grid = await self._in_process(job, slot)
            assert self._memory is not None
            values = in_slot(self._memory, slot.number, grid, self._rules.spec)
            yield Patches(torch.from_numpy(values), grid)
        finally:
            slot.give_back(self._free)

    async def close(self) -> None:
        """End all processes; images on their way are refused."""
        self._closed = True
        executor, self._executor = self._executor, None
        if executor is not None:
            await asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True)
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    @property
    def is_warm(self) -> bool:
        """Whether a process is ready."""
        return self._warm is not None and self._warm.done() and self._warm.exception() is None

    @property
    def has_room(self) -> bool:
        """Whether a process could write somewhere now."""
        return bool(self._free)

    def _take_slot(self) -> "_Slot | None":
        """Where a process may write to; None when none is ready. Starts the first after enough images."""
        if not self._processes or self._num_seen <= IMAGES_BEFORE_PROCESSES:
            return None
        if self._warm is None:
            self._start()
        # Slots of callers who left come back when their images are done, so there may be none.
        return _Slot(self._free.pop()) if self.is_warm and self._free else None

    def _start(self) -> None:
        if self._memory is None:
            self._memory = SharedSlots.create(self._max_images, self._slot_bytes)
        self._executor = self._new_executor(self._processes)
        with children_without_main():
            self._warm = self._executor.submit(os.getpid)

    def _new_executor(self, processes: int) -> ProcessPoolExecutor:
        assert self._memory is not None
        return ProcessPoolExecutor(
            processes,
            # A forked child would inherit locks that threads of this process hold.
            mp_context=get_context("spawn"),
            initializer=set_up,
            initargs=(self._rules, self._memory.path, self._slot_bytes),
        )

    async def _in_process(self, job: Job, slot: "_Slot") -> Grid:
        executor = self._executor
        try:
            return await self._submitted(executor, job, slot)
        except BrokenExecutor:
            if self._executor is executor and not self._closed:
                # Whoever comes next is prepared in a thread until a new process is up.
                self._executor, self._warm = None, None
        if self._closed:
            raise _stopped()
        return await self._alone(job, slot)

    async def _alone(self, job: Job, slot: "_Slot") -> Grid:
        """Again, in a process that has no other image to crash on."""
        executor = self._new_executor(1)
        try:
            return await self._submitted(executor, job, slot)
        except BrokenExecutor as error:
            if self._closed:
                raise _stopped() from error
            raise InputError(
                "The process that prepared the image ended, twice. It is damaged in a way that crashes its "
                "decoder, or there is not enough memory for it. Save it anew in another format."
            ) from error
        finally:
            await asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True)

    async def _submitted(
        self, executor: ProcessPoolExecutor | None, job: Job, slot: "_Slot"
    ) -> Grid:
        if executor is None:
            raise _stopped()
        with children_without_main():
            prepared = executor.submit(prepare_in_slot, job, slot.number)
        slot.written_by = prepared
        try:
            return await asyncio.wrap_future(prepared)
        except asyncio.CancelledError as error:
            if self._closed and prepared.cancelled():
                raise _stopped() from error
            raise


def _stopped() -> EngineStoppedError:
    return EngineStoppedError("The engine was closed while an image was prepared.")
