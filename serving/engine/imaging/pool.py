"""Processes that prepare images while this one serves; patches come back through shared memory.

In threads of this process, decoding takes turns with the event loop at the interpreter's lock, and a decoder
that crashes takes the server with it. A process takes seconds to start, so the first images are prepared in
threads nevertheless, as are those that come while a crashed process is replaced, and those that are decoded
already. Knows no vLLM.
"""

import asyncio
import logging
import math
import os
from collections.abc import AsyncIterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import psutil
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
from serving.errors import EngineError, EngineStoppedError, InputError

_log = logging.getLogger(__name__)

_PAGE_BYTES = 4096

IMAGES_BEFORE_PROCESSES = 16
"""Whoever embeds a few images does not wait for processes, nor pay for them."""


def num_processes(asked: int | None) -> int:
    """`asked`, or one for each core but the one that serves, and not more than 8.

    None on two cores: there, with one for the engine, processes only took turns with the threads they
    replace (benchmarks/README.md, "Images").
    """
    if asked is not None:
        return asked
    num_cores = len(os.sched_getaffinity(0))
    return min(8, num_cores - 1) if num_cores > 2 else 0


@dataclass(slots=True)
class _Slot:
    """A slot that is taken.

    Attributes:
        number: which.
        written_by: the last that was asked to write to it.
        is_lost: somebody may write to it at any time.
    """

    number: int
    written_by: "Future[Grid] | None" = None
    is_lost: bool = False

    def give_back(self, free: list[int]) -> None:
        """Let others have it as soon as nobody writes to it any more.

        A caller may leave while a process still prepares its image; what that writes must not become
        another's pixels.
        """
        if self.is_lost:
            return
        if self.written_by is None:
            free.append(self.number)
        else:
            self.written_by.add_done_callback(lambda _: free.append(self.number))


@dataclass(frozen=True, slots=True)
class _Quarantine:
    """One process, for one image at a time, while there are some that a process may have ended of."""

    executor: ProcessPoolExecutor
    started: set[psutil.Process]


class _NoProcessError(Exception):
    """A job was not given to a process, as far as is known."""


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
        num_bytes = rules.bounds.max_image_tokens * spec.merge_size**2 * values_of_patch(spec)
        self._slot_bytes = math.ceil(num_bytes / _PAGE_BYTES) * _PAGE_BYTES
        self._num_seen = 0
        self._memory: SharedSlots | None = None
        self._free = list(range(max_images))
        self._executor: ProcessPoolExecutor | None = None
        self._warm: Future[object] | None = None
        self._started: set[psutil.Process] = set()
        self._alone = asyncio.Lock()
        self._num_lost = 0
        self._suspects = 0
        """Images that were being prepared when a process ended, and are not prepared yet."""
        self._quarantine: _Quarantine | None = None
        self._closed = False

    @asynccontextmanager
    async def patches(self, prompt: ImagePrompt) -> AsyncIterator[Patches]:
        """The patches of `prompt`'s image, until the block is left.

        Raises:
            InputError: the image cannot be decoded, or is too large for the engine.
            EngineError: a process ended, of this image or another, and none could be started in its place.
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
            if grid is None:
                yield await asyncio.to_thread(prepare, job, self._rules)
                return
            assert self._memory is not None
            values = in_slot(self._memory, slot.number, grid, self._rules.spec)
            yield Patches(torch.from_numpy(values), grid)
        finally:
            slot.give_back(self._free)

    def close(self) -> None:
        """End all processes at once; images on their way are refused.

        Nothing is waited for, and no thread needed: this is called when the interpreter ends, too.
        """
        self._closed = True
        self._kill(self._started)
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    @property
    def is_warm(self) -> bool:
        """Whether a process is ready."""
        return self._warm is not None and self._warm.done() and self._warm.exception() is None

    @property
    def has_room(self) -> bool:
        """Whether a process could write somewhere now."""
        return bool(self._free)

    def _take_slot(self) -> _Slot | None:
        """Where a process may write to; None when none is ready. Starts the first after enough images."""
        if not self._processes or self._num_seen <= IMAGES_BEFORE_PROCESSES:
            return None
        if self._warm is None:
            self._start()
        elif self._warm.done() and (error := self._warm.exception()) is not None:
            self._do_without(error)
        # Slots of callers who left come back when their images are done, so there may be none.
        return _Slot(self._free.pop()) if self.is_warm and self.has_room else None

    def _start(self) -> None:
        try:
            if self._memory is None:
                self._memory = SharedSlots.create(self._max_images, self._slot_bytes)
            self._executor = self._new_executor(self._processes)
            with children_without_main(partial(self._note, self._started)):
                self._warm = self._executor.submit(os.getpid)
        except OSError as error:
            self._do_without(error)

    def _do_without(self, error: BaseException) -> None:
        _log.warning("No process for images could be started (%s); threads prepare them.", error)
        self._processes, self._warm, self._executor = 0, None, None

    def _new_executor(self, processes: int) -> ProcessPoolExecutor:
        assert self._memory is not None
        return ProcessPoolExecutor(
            processes,
            # A forked child would inherit locks that threads of this process hold.
            mp_context=get_context("spawn"),
            initializer=set_up,
            initargs=(self._rules, self._memory.path, self._slot_bytes),
        )

    async def _in_process(self, job: Job, slot: _Slot) -> Grid | None:
        """Prepare in a process, into `slot`; None if none could be started for it."""
        executor = self._executor
        assert executor is not None
        try:
            return await self._submitted(executor, self._started, job, slot)
        except _NoProcessError as error:
            # Another process may do the job yet, since the executor queues it first, and write at any time.
            slot.is_lost = True
            self._num_lost += 1
            if self._num_lost >= self._max_images:
                self._do_without(error)
            else:
                _log.warning(
                    "No process for images could be started (%s); a thread takes one.", error
                )
            return None
        except BrokenExecutor:
            if self._executor is executor:
                # Whoever comes next is prepared in a thread until a new process is up.
                self._executor, self._warm = None, None
        self._suspects += 1
        try:
            async with self._alone:
                return await self._again(job, slot)
        finally:
            self._suspects -= 1
            if not self._suspects:
                self._end_quarantine()

    async def _again(self, job: Job, slot: _Slot) -> Grid:
        """In a process that has no other image to crash on."""
        if self._closed:
            raise _stopped()
        is_new = self._quarantine is None
        if self._quarantine is None:
            self._quarantine = _Quarantine(self._new_executor(1), set())
        before = slot.written_by
        try:
            return await self._submitted(
                self._quarantine.executor, self._quarantine.started, job, slot
            )
        except _NoProcessError as error:
            raise EngineError(
                f"A process that prepared images ended, and no other could be started ({error}). Try again."
            ) from error
        except BrokenExecutor as error:
            if self._closed:
                raise _stopped() from error
            if slot.written_by is before and not is_new:
                # Its process had ended before it was given this image.
                self._end_quarantine()
                return await self._again(job, slot)
            raise InputError(
                "The process that prepared the image ended, twice. It is damaged in a way that crashes "
                "its decoder, or there is not enough memory for it. Save it anew in another format."
            ) from error
        finally:
            done = slot.written_by
            if done is None or not done.done() or isinstance(done.exception(), BrokenExecutor):
                # Its process has ended, or still has an image whose caller has left.
                self._end_quarantine()

    def _end_quarantine(self) -> None:
        quarantine, self._quarantine = self._quarantine, None
        if quarantine is not None:
            self._kill(quarantine.started)
            quarantine.executor.shutdown(wait=False)

    async def _submitted(
        self,
        executor: ProcessPoolExecutor,
        started: set[psutil.Process],
        job: Job,
        slot: _Slot,
    ) -> Grid:
        try:
            with children_without_main(partial(self._note, started)):
                prepared = executor.submit(prepare_in_slot, job, slot.number)
        except BrokenExecutor:
            raise
        except (OSError, RuntimeError) as error:
            raise _NoProcessError(str(error)) from error
        slot.written_by = prepared
        # A cancelled future would break the executor should a process end later, for all that wait.
        waiting = asyncio.wrap_future(prepared)
        waiting.add_done_callback(_retrieve)
        return await asyncio.shield(waiting)

    def _note(self, started: set[psutil.Process], pid: int) -> None:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            started.add(process)
            self._started.add(process)

    def _kill(self, processes: set[psutil.Process]) -> None:
        # What they prepare is of no use to anybody, and a decoder may take minutes.
        for process in tuple(processes):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._started -= processes


def _retrieve(prepared: "asyncio.Future[Grid]") -> None:
    """Its caller may have left; asyncio would complain that nobody looked."""
    if not prepared.cancelled():
        prepared.exception()


def _stopped() -> EngineStoppedError:
    return EngineStoppedError(
        "The engine was closed while an image was prepared. Load the checkpoint again."
    )
