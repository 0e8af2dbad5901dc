"""One pass over the base: reads each piece once, merges it for every task, hands it to a sink.

Several worker threads take pieces in file order; torch and the system calls release the
interpreter lock, and each worker keeps torch to one thread, because torch's own threads lose more
to contention than they gain on blocks that fit a core's cache. Memory is bounded by the workers'
buffers, not by the model. Deliberately knows no output file and no manifest: writing and
verifying are two sinks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Protocol, runtime_checkable

import torch
import xxhash
from jaxtyping import Float, Float32
from torch import Tensor

from merge_tools.arithmetic import merge_rows
from merge_tools.buffers import Buffer, allocate, bytes_of
from merge_tools.digest import Piece, combined, pieces_of, split_rows
from merge_tools.dtypes import DType
from merge_tools.errors import NonFiniteError
from merge_tools.factors import FactorCache, Factors
from merge_tools.plan import MergePlan, TensorPlan
from merge_tools.reading import Reader
from merge_tools.shards import StoredTensor
from merge_tools.signals import held_signals, let_signals_through
from merge_tools.values import all_fit

__all__ = ["Digests", "Progress", "Sink", "execute"]

NUM_WORKERS = 4
# 2 MiB of float32: small enough for the caches, large enough for the product to run at full speed.
BLOCK_ELEMENTS = 512 << 10
OUTPUT_BYTES_PER_WORKER = 48 << 20
POLL_S = 0.1

Progress = Callable[[int, int], None]


@runtime_checkable
class Sink(Protocol):
    """Where finished bytes go; called from several threads at once, in any order."""

    def put(self, task: str | None, tensor: TensorPlan, first_byte: int, data: Buffer) -> None:
        """Takes bytes of a tensor of one task, or of all tasks alike when `task` is None."""


@dataclass(slots=True)
class Digests:
    """Digests of one executed plan: of outputs by (tensor, task), of touched bases by tensor.

    A shared tensor's output digest stands under task None.
    """

    outputs: dict[tuple[str, str | None], str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Tally:
    """Digests of one tensor's pieces while they come in."""

    num_left: int
    outputs: dict[str | None, list[bytes]]
    source: list[bytes]


class _Workspace:
    """One worker's buffers."""

    def __init__(self, plan: MergePlan, group: int) -> None:
        saved = [tensor for each in plan.tensors for tensor in each.replacements.values()]
        out_bytes = max(_piece_elements(t.base) for t in plan.tensors) * plan.dtype.num_bytes
        block = max(BLOCK_ELEMENTS, *(_block_elements(t.base.shape) for t in plan.tensors))
        self.input = allocate(_read_bytes([tensor.base for tensor in plan.tensors]))
        self.saved = allocate(_read_bytes(saved))
        self.outputs = [allocate(out_bytes) for _ in range(group)]
        self.base = allocate(block * 4).view(torch.float32)
        self.result = allocate(block * 4).view(torch.float32)


def _read_bytes(tensors: Sequence[StoredTensor]) -> int:
    """The buffer that reading any piece of any of these tensors needs."""
    sizes = (_piece_elements(tensor) * tensor.dtype.num_bytes for tensor in tensors)
    return Reader.buffer_bytes(max(sizes, default=0))


def _piece_elements(tensor: StoredTensor) -> int:
    return max(piece.num_elements for piece in pieces_of(tensor.shape))


def _block_elements(shape: tuple[int, ...]) -> int:
    return max(
        num_rows * piece.columns
        for piece in pieces_of(shape)
        for _, num_rows in split_rows(piece.num_rows, piece.columns, BLOCK_ELEMENTS)
    )


def execute(
    plan: MergePlan,
    sink: Sink,
    *,
    progress: Progress | None = None,
    num_workers: int = NUM_WORKERS,
) -> Digests:
    """Computes every output byte of the plan and gives it to the sink, once.

    Args:
        plan: what to compute.
        sink: takes the bytes.
        progress: called now and then with (base bytes done, base bytes in all), in this thread.
        num_workers: threads; more than cores, so that one computes while another waits for a disk.

    Raises:
        NonFiniteError: the base holds a NaN or an infinity, or a result does not fit the dtype.
        CorruptShard: a file could not be read as it was when the plan was made.
        MergeToolsError: whatever the sink raises.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with held_signals(), Reader() as reader, ThreadPoolExecutor(num_workers) as pool:
            run = _Run(plan, sink, reader)
            try:
                futures = [pool.submit(run.work) for _ in range(num_workers)]
                _wait(futures, run, progress)
            finally:
                run.stop.set()
        return run.digests
    finally:
        torch.set_num_threads(threads_before)


def _wait(futures: Sequence[Future[None]], run: "_Run", progress: Progress | None) -> None:
    pending = set(futures)
    while pending:
        let_signals_through()
        done, pending = wait(pending, timeout=POLL_S, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        if progress is not None:
            progress(run.bytes_done, run.bytes_total)


class _Run:
    """What the workers share."""

    def __init__(self, plan: MergePlan, sink: Sink, reader: Reader) -> None:
        self.stop = Event()
        self.digests = Digests()
        self.bytes_done = 0
        self.bytes_total = sum(tensor.base.num_bytes for tensor in plan.tensors)
        self._plan = plan
        self._sink = sink
        self._reader = reader
        self._factors = FactorCache(reader)
        self._lock = Lock()
        self._jobs = self._all_jobs()
        self._tallies: dict[str, _Tally] = {}
        piece_bytes = max(_piece_elements(t.base) for t in plan.tensors) * plan.dtype.num_bytes
        fitting = OUTPUT_BYTES_PER_WORKER // max(piece_bytes, 1)
        self._group = max(1, min(len(plan.tasks), fitting))

    def work(self) -> None:
        """One worker's life: take a piece, merge it, until none is left or one failed."""
        torch.set_num_threads(1)
        workspace = _Workspace(self._plan, self._group)
        finished = False
        try:
            while not self.stop.is_set():
                with self._lock:
                    job = next(self._jobs, None)
                if job is None:
                    break
                self._do(*job, workspace)
            finished = True
        finally:
            if not finished:
                self.stop.set()

    def _all_jobs(self) -> Iterator[tuple[TensorPlan, int, Piece]]:
        in_file_order = sorted(
            self._plan.tensors, key=lambda tensor: (str(tensor.base.path), tensor.base.offset)
        )
        for tensor in in_file_order:
            pieces = pieces_of(tensor.base.shape)
            keys: Sequence[str | None] = self._plan.tasks if tensor.is_touched else (None,)
            self._tallies[tensor.name] = _Tally(
                len(pieces), {key: [b""] * len(pieces) for key in keys}, [b""] * len(pieces)
            )
            for number, piece in enumerate(pieces):
                yield tensor, number, piece

    def _do(self, tensor: TensorPlan, number: int, piece: Piece, workspace: _Workspace) -> None:
        values = self._reader.read(
            tensor.base, piece.first_element, piece.num_elements, workspace.input
        )
        tally = self._tallies[tensor.name]
        if tensor.is_touched:
            tally.source[number] = _xxh3(values)
            tasks = self._plan.tasks
            for start in range(0, len(tasks), self._group):
                group = tasks[start : start + self._group]
                digests = self._merge(tensor, piece, values, group, workspace)
                for task, digest in digests.items():
                    tally.outputs[task][number] = digest
        else:
            tally.outputs[None][number] = self._copy(tensor, piece, values, workspace)
        self._account(tensor, tally, values.nbytes)

    def _copy(
        self, tensor: TensorPlan, piece: Piece, values: Float[Tensor, " element"], ws: _Workspace
    ) -> bytes:
        dtype = self._plan.dtype
        # Copied even when the dtype stays: input buffers are not aligned as direct writes need it.
        out = _typed(ws.outputs[0], piece.num_elements, dtype)
        for first in range(0, piece.num_elements, BLOCK_ELEMENTS):
            block = values[first : first + BLOCK_ELEMENTS]
            wide = ws.base[: block.numel()].copy_(block)
            _require_fit(wide, tensor, dtype, None)
            out[first : first + BLOCK_ELEMENTS].copy_(wide)
        self._put(None, tensor, piece, out)
        return _xxh3(out)

    def _merge(
        self,
        tensor: TensorPlan,
        piece: Piece,
        values: Float[Tensor, " element"],
        tasks: Sequence[str],
        ws: _Workspace,
    ) -> Mapping[str, bytes]:
        """Merges one piece for some tasks; every block of the base is widened once for them all."""
        dtype = self._plan.dtype
        factors = self._factors.of(tensor)
        outs = [_typed(ws.outputs[i], piece.num_elements, dtype) for i in range(len(tasks))]
        hashers = [xxhash.xxh3_128() for _ in tasks]
        columns = piece.columns
        for first, num_rows in split_rows(piece.num_rows, columns, BLOCK_ELEMENTS):
            span = slice(first * columns, (first + num_rows) * columns)
            wide = ws.base[: num_rows * columns].copy_(values[span])
            for task, out, hasher in zip(tasks, outs, hashers, strict=True):
                result = wide
                pair = factors.get(task)
                if pair is not None:
                    result = ws.result[: num_rows * columns]
                    rows = slice(piece.first_row + first, piece.first_row + first + num_rows)
                    _merge_block(wide, pair, rows, result, columns)
                elif task in tensor.replacements:
                    result = self._replacement(tensor, task, piece, span, ws)
                _require_fit(result, tensor, dtype, task)
                out[span].copy_(result)
                hasher.update(bytes_of(out[span]))
        for task, out in zip(tasks, outs, strict=True):
            self._put(task, tensor, piece, out)
        return {task: hasher.digest() for task, hasher in zip(tasks, hashers, strict=True)}

    def _replacement(
        self, tensor: TensorPlan, task: str, piece: Piece, span: slice, ws: _Workspace
    ) -> Float32[Tensor, " element"]:
        saved = self._reader.read(
            tensor.replacements[task],
            piece.first_element + span.start,
            span.stop - span.start,
            ws.saved,
        )
        return ws.result[: span.stop - span.start].copy_(saved)

    def _put(
        self, task: str | None, tensor: TensorPlan, piece: Piece, out: Float[Tensor, " element"]
    ) -> None:
        first_byte = piece.first_element * self._plan.dtype.num_bytes
        self._sink.put(task, tensor, first_byte, out.view(torch.uint8))

    def _account(self, tensor: TensorPlan, tally: _Tally, num_bytes: int) -> None:
        with self._lock:
            self.bytes_done += num_bytes
            tally.num_left -= 1
            if tally.num_left:
                return
            self._factors.forget(tensor)
            for task, digests in tally.outputs.items():
                self.digests.outputs[tensor.name, task] = combined(digests)
            if tensor.is_touched:
                self.digests.sources[tensor.name] = combined(tally.source)


def _merge_block(
    wide: Float32[Tensor, " element"],
    pair: Factors,
    rows: slice,
    result: Float32[Tensor, " element"],
    columns: int,
) -> None:
    merge_rows(wide.view(-1, columns), pair.a, pair.b[rows], pair.scale, result.view(-1, columns))


def _typed(buffer: Buffer, num_elements: int, dtype: DType) -> Float[Tensor, " element"]:
    return buffer[: num_elements * dtype.num_bytes].view(dtype.torch)


def _xxh3(values: Float[Tensor, " element"]) -> bytes:
    return xxhash.xxh3_128_digest(bytes_of(values))


def _require_fit(
    values: Float32[Tensor, " element"], tensor: TensorPlan, dtype: DType, task: str | None
) -> None:
    if all_fit(values, dtype):
        return
    if not bool(torch.isfinite(values).all()):
        where = f"{tensor.base.name} in {tensor.base.path}"
        raise NonFiniteError(
            f"{where} holds a NaN or an infinity{f' after merging {task}' if task else ''}; the "
            "file is damaged. Fetch it again."
        )
    largest = float(values.abs().max())
    raise NonFiniteError(
        f"{tensor.base.name} holds {largest:g}, and {dtype.name} ends at {dtype.largest:g}. "
        "Choose bfloat16 or float32 for the output."
    )
