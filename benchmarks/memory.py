"""Whether a long run keeps more and more memory: `serving.Embedder` over 100,000 texts, one engine.

    python -m benchmarks.memory --merged OUT --task retrieval

The texts have 64 tokens each, all differ, are made for one call of 2,048 at a time, and their vectors are dropped after
it, so that the driver itself keeps nothing. Every 5,000 texts (in short runs every twentieth of
them), after a call, the memory of this process (API, tokenising) and of every process below it (vLLM's) is read: resident
(RSS), and proportional (PSS), in which a page that n processes share counts an n-th. Growth is the median of the last tenth of these
readings less that of the first tenth; what loading and the first calls allocate stands before the first reading. The peaks
are the kernel's own, of each process since it started, loading included.

With the `null` shape, whose model is a lookup and nothing else, add `--null-model`. It knows nothing of
polyvec's insides.
"""

import argparse
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.card import Card, format_card, make_card
from benchmarks.load.cpu import processes
from benchmarks.null_model import use_null_model
from benchmarks.workloads import WORKLOADS, texts

TEXTS_PER_CALL = 2048
_TEXTS_PER_SAMPLE = 5000
_WORKLOAD = WORKLOADS["text-64"]


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """One process at one time.

    Attributes:
        name: as it calls itself.
        rss_bytes: resident, pages shared with others included.
        pss_bytes: resident, pages shared by n processes counted as an n-th.
        peak_rss_bytes: the most that was resident since it started.
    """

    pid: int
    name: str
    rss_bytes: int
    pss_bytes: int
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True)
class Sample:
    """All processes after a number of texts.

    Attributes:
        engine: every process below this one.
    """

    num_texts: int
    own: ProcessMemory
    engine: list[ProcessMemory]


@dataclass(frozen=True, slots=True)
class Growth:
    """From the first tenth of the samples to the last, medians; None where there is one sample."""

    own_rss_bytes: float | None
    own_pss_bytes: float | None
    engine_rss_bytes: float | None
    engine_pss_bytes: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """One run.

    Attributes:
        seconds: wall time of all texts, making them and sampling included.
        own_peak_rss_bytes: of this process.
        engine_peak_rss_bytes: the sum of the others' peaks, which need not have been at one time.
    """

    card: Card
    task: str
    null_model: bool
    num_texts: int
    tokens_per_text: int
    texts_per_call: int
    seconds: float
    own_peak_rss_bytes: int
    engine_peak_rss_bytes: int
    growth: Growth
    samples: list[Sample]


def main() -> None:
    """Embed, sample; prints the card, a table, what grew and one line of JSON."""
    options = _parse()
    if options.null_model:
        use_null_model()
    card = make_card()
    print(format_card(card))
    from serving import Embedder

    print(f"{'texts done':>12} {'RSS of this process MB':>24} {'RSS of the engine MB':>24}")
    samples: list[Sample] = []
    with Embedder.load(options.merged / options.task) as embedder:

        def embed(batch: list[str]) -> None:
            made = embedder.encode_text(batch, max_length=_WORKLOAD.num_tokens)
            assert len(made) == len(batch)

        started = time.perf_counter()
        for sample in sampled(embed, options.texts, read_memory):
            samples.append(sample)
            print(format_sample(sample), flush=True)
        seconds = time.perf_counter() - started
    result = Result(
        card,
        options.task,
        options.null_model,
        options.texts,
        _WORKLOAD.num_tokens,
        TEXTS_PER_CALL,
        seconds,
        own_peak_rss_bytes=samples[-1].own.peak_rss_bytes,
        engine_peak_rss_bytes=sum(one.peak_rss_bytes for one in samples[-1].engine),
        growth=growth_of(samples),
        samples=samples,
    )
    print(format_growth(result))
    line = json.dumps(asdict(result))
    if options.out is not None:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


def batches(num_texts: int) -> Iterator[list[str]]:
    """Texts for one call after another, made when asked for."""
    for seed, at in enumerate(range(0, num_texts, TEXTS_PER_CALL)):
        yield texts(_WORKLOAD, min(TEXTS_PER_CALL, num_texts - at), seed)


def sampled(
    embed: Callable[[list[str]], None], num_texts: int, read: Callable[[int], Sample]
) -> Iterator[Sample]:
    """Embed all texts; a sample after the call that passes each multiple of the interval, and at the end."""
    interval = min(_TEXTS_PER_SAMPLE, max(1, num_texts // 20))
    done, due = 0, interval
    for batch in batches(num_texts):
        embed(batch)
        done += len(batch)
        if done >= due or done == num_texts:
            due = done - done % interval + interval
            yield read(done)


def read_memory(num_texts: int) -> Sample:
    """This process and all below it, now."""
    own, *children = (_memory(process) for process in processes(os.getpid()))
    assert own is not None
    return Sample(num_texts, own, [child for child in children if child is not None])


def growth_of(samples: Sequence[Sample]) -> Growth:
    """What was added between the first and the last tenth, at least one sample each."""

    def grown(value: Callable[[Sample], int]) -> float | None:
        if len(samples) < 2:
            return None
        share = max(1, round(len(samples) / 10))
        first, last = samples[:share], samples[-share:]
        return statistics.median(map(value, last)) - statistics.median(map(value, first))

    return Growth(
        own_rss_bytes=grown(lambda sample: sample.own.rss_bytes),
        own_pss_bytes=grown(lambda sample: sample.own.pss_bytes),
        engine_rss_bytes=grown(lambda sample: sum(one.rss_bytes for one in sample.engine)),
        engine_pss_bytes=grown(lambda sample: sum(one.pss_bytes for one in sample.engine)),
    )


def format_sample(sample: Sample) -> str:
    """A row of the table."""
    engine = sum(one.rss_bytes for one in sample.engine)
    return f"{sample.num_texts:>12,} {sample.own.rss_bytes / 1e6:>24.1f} {engine / 1e6:>24.1f}"


def format_growth(result: Result) -> str:
    """What grew, and the peaks."""
    growth = result.growth
    rows = [
        ("this process", growth.own_rss_bytes, growth.own_pss_bytes, result.own_peak_rss_bytes),
        (
            "the engine",
            growth.engine_rss_bytes,
            growth.engine_pss_bytes,
            result.engine_peak_rss_bytes,
        ),
    ]
    return "\n".join(
        f"{name} grew by {_mb(rss)} (PSS {_mb(pss)}) from the first tenth of the samples to the last; "
        f"peak RSS {_mb(peak)}"
        for name, rss, pss, peak in rows
    )


def _mb(num_bytes: float | None) -> str:
    return "unknown" if num_bytes is None else f"{num_bytes / 1e6:.1f} MB"


def _memory(process: psutil.Process) -> ProcessMemory | None:
    try:
        held = process.memory_full_info()
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        name = Path((process.cmdline() or [process.name()])[0]).name
    except (psutil.Error, OSError):
        return None  # it ended meanwhile
    peak = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    # A process that ends has no memory, and no peak, any more.
    peak_bytes = 1024 * int(peak[1]) if peak else held.rss
    return ProcessMemory(process.pid, name, held.rss, held.pss, peak_bytes)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--merged", type=Path, required=True, help="what polyvec merge wrote of it")
    parser.add_argument("--task", default="retrieval")
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument(
        "--null-model", action="store_true", help="the checkpoint has no layers: shape null"
    )
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
