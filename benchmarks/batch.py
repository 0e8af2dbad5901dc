"""Batch jobs against the same engine fed from memory, and their memory as the corpus grows.

    python -m benchmarks.batch --merged OUT/retrieval --out benchmarks/results/batch-cpu.json

Throughput: texts through `polyvec embed`'s function (Ray, files and all), and the same texts in one call of the Python
API, with an engine of fixed service times and with the real one. A job's rate is taken from its fifth finished file to
its last but four, since starting Ray takes a while once; the wall time of the whole call stands beside it. Rounds alternate.
Memory: resident bytes of the driver and of all processes below it, together, sampled; Ray's object store is shared, and
counts in each process that has it mapped (RSS) or once (PSS).
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import psutil

from benchmarks.batch_job import ServiceTimes, SleepingEngine, start_sleeping, write_corpus
from benchmarks.card import Card, format_card, make_card
from serving import Embedder, EngineSettings
from serving.batch.summary import Progress
from serving.cluster.batch import embed_corpus
from serving.settings import BatchSettings

_SAMPLE_S = 0.5
_ROWS_PER_FILE = 256
_EDGE_FILES = 5


@dataclass(frozen=True, slots=True)
class Rate:
    """One round: rows a second.

    Attributes:
        job: of the job, between its fifth file and its last but four.
        job_wall_s: the whole call, starting Ray and the engine included.
        memory: of the Python API, fed from memory.
    """

    job: float
    job_wall_s: float
    memory: float


@dataclass(frozen=True, slots=True)
class Throughput:
    """All rounds with one engine; `ratio` is the medians' quotient, job by memory."""

    engine: str
    num_rows: int
    rounds: list[Rate]
    ratio: float


@dataclass(frozen=True, slots=True)
class Peak:
    """The most memory that a job had at one time, in all its processes together."""

    num_rows: int
    rss_bytes: int
    pss_bytes: int


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    card: Card
    throughput: list[Throughput]
    peaks: list[Peak]


def main() -> None:
    """Measure; prints the card, figures and one line of JSON."""
    options = _parse()
    card = make_card()
    print(format_card(card), flush=True)
    with tempfile.TemporaryDirectory(prefix="batch-") as scratch:
        root = Path(scratch)
        throughput = []
        for engine, rows in (("fixed", options.rows), ("vllm", options.vllm_rows)):
            if rows:
                throughput.append(
                    _throughput(engine, options.merged, root, rows, options.rounds, options.text_ms)
                )
        peaks = [
            _peak_of(options.merged, root, rows, options.text_ms) for rows in options.memory_rows
        ]
    for one in throughput:
        print(
            f"{one.engine:>6}: {one.ratio:.3f} of the rate from memory, medians of {len(one.rounds)}"
        )
    for peak in peaks:
        print(
            f"{peak.num_rows:>10,} rows: peak RSS {peak.rss_bytes / 1e6:,.0f} MB, PSS {peak.pss_bytes / 1e6:,.0f} MB"
        )
    line = json.dumps(asdict(Result(card, throughput, peaks)))
    if options.out is not None:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


def _throughput(
    engine: str, merged: Path, root: Path, num_rows: int, num_rounds: int, text_ms: float
) -> Throughput:
    source = write_corpus(root / f"{engine}.jsonl", num_rows)
    rounds = []
    for number in range(num_rounds):
        job, wall_s = _job_rate(engine, merged, source, root / f"{engine}-{number}", text_ms)
        rounds.append(Rate(job, wall_s, _memory_rate(engine, merged, source, text_ms)))
        print(
            f"{engine:>6}: job {job:,.1f} rows/s, from memory {rounds[-1].memory:,.1f}", flush=True
        )
    ratio = statistics.median(one.job for one in rounds) / statistics.median(
        one.memory for one in rounds
    )
    return Throughput(engine, num_rows, rounds, ratio)


def _job_rate(
    engine: str, merged: Path, source: Path, output: Path, text_ms: float
) -> tuple[float, float]:
    """Rows a second while the engine has work, and the seconds of the whole call."""
    seen: list[tuple[float, int]] = []

    def note(progress: Progress) -> None:
        seen.append((time.perf_counter(), progress.rows))

    start = start_sleeping(ServiceTimes(text_ms / 1000)) if engine == "fixed" else None
    settings = BatchSettings(rows_per_file=_ROWS_PER_FILE)
    started = time.perf_counter()
    embed_corpus(source, merged, output, settings, start=start, on_progress=note)
    wall_s = time.perf_counter() - started
    # As many chunks are under way at the one as at the other.
    (first_s, first_rows), (last_s, last_rows) = seen[_EDGE_FILES], seen[-_EDGE_FILES]
    return (last_rows - first_rows) / (last_s - first_s), wall_s


def _memory_rate(engine: str, merged: Path, source: Path, text_ms: float) -> float:
    """Rows a second of one call with all texts, after a few to warm up."""
    texts = [json.loads(line)["text"] for line in source.read_text(encoding="utf-8").splitlines()]
    if engine == "fixed":
        times = ServiceTimes(text_ms / 1000)
        loaded = Embedder.from_engines({"task": merged}, {"task": SleepingEngine(merged, times)})
    else:
        # As many threads as a job's engine has.
        reserved = BatchSettings().reserved_cores
        loaded = Embedder.load(merged, settings=EngineSettings(reserved_cores=reserved))
    with loaded as embedder:
        embedder.encode_text(texts[:_ROWS_PER_FILE], prompt_name="passage")
        started = time.perf_counter()
        embedder.encode_text(texts, prompt_name="passage")
        return len(texts) / (time.perf_counter() - started)


def _peak_of(merged: Path, root: Path, num_rows: int, text_ms: float) -> Peak:
    """A job in a process of its own, so that no other has left anything in it."""
    source = write_corpus(root / f"memory-{num_rows}.jsonl", num_rows)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        peak = pool.submit(
            _measured_job, merged, source, root / f"memory-{num_rows}", num_rows, text_ms
        ).result()
    print(f"{num_rows:>10,} rows: peak RSS {peak.rss_bytes / 1e6:,.0f} MB", flush=True)
    return peak


def _measured_job(merged: Path, source: Path, output: Path, num_rows: int, text_ms: float) -> Peak:
    rss_bytes = pss_bytes = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal rss_bytes, pss_bytes
        while not ended.wait(_SAMPLE_S):
            rss, pss = _family_bytes()
            rss_bytes, pss_bytes = max(rss_bytes, rss), max(pss_bytes, pss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run: Callable[..., object] = embed_corpus
    try:
        run(
            source,
            merged,
            output,
            BatchSettings(),
            start=start_sleeping(ServiceTimes(text_ms / 1000)),
        )
    finally:
        ended.set()
        watcher.join()
    return Peak(num_rows, rss_bytes, pss_bytes)


def _family_bytes() -> tuple[int, int]:
    rss = pss = 0
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.Error):
            held = process.memory_full_info()
            rss, pss = rss + held.rss, pss + held.pss
    return rss, pss


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--merged", type=Path, required=True, help="one merged task")
    parser.add_argument("--rows", type=int, default=60_000, help="with fixed service times; 0: not")
    parser.add_argument(
        "--vllm-rows", type=int, default=20_000, help="with the real engine; 0: not"
    )
    parser.add_argument("--memory-rows", type=int, nargs="*", default=[20_000, 200_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--text-ms", type=float, default=1.0, help="service time of a text")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
