"""Once through everything at the true size, on this machine: merge, verify, load, a page and a few texts.

    python -m benchmarks.full_size --workdir DIR

Builds a synthetic checkpoint of 3.75 billion parameters in DIR (16 GB with one merged task; removed afterwards),
merges one task, verifies it, starts vLLM in bfloat16 and embeds. It answers whether the real model fits
and how long a user waits, not how fast an accelerator is; the weights are random, so the vectors mean nothing.
"""

import argparse
import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from benchmarks.card import Card, format_card, make_card
from benchmarks.synthetic import SHAPES, build
from benchmarks.workloads import WORKLOADS, pages, texts

_SAMPLE_S = 0.2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One step: wall time, and the most memory all processes held at once (proportional set size)."""

    name: str
    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    card: Card
    shape: str
    task: str
    steps: list[Step] = field(default_factory=list)


def main() -> None:
    """Run all steps; prints the card, a line a step and one line of JSON."""
    options = _parse()
    card = make_card()
    print(format_card(card))
    result = Result(card, options.shape, "retrieval")
    scratch: Path = options.workdir / "full-size"
    scratch.mkdir(parents=True)
    try:
        _run(result, options.shape, scratch)
    finally:
        shutil.rmtree(scratch)
    line = json.dumps(asdict(result))
    if options.out is not None:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


def _run(result: Result, shape: str, scratch: Path) -> None:
    from merge_tools import merge, plan_merge, resolve_source, verify
    from serving import Embedder

    source, out = scratch / "source", scratch / "merged"

    def measure(name: str, call: Callable[[], T]) -> T:
        value, step = _measured(name, call)
        result.steps.append(step)
        print(f"{name:<28} {step.seconds:>8.2f} s {step.peak_bytes / 1e9:>8.2f} GB", flush=True)
        return value

    measure("build", lambda: build(source, SHAPES[shape]))
    plan = plan_merge(resolve_source(source), tasks=[result.task])
    measure("merge one task", lambda: merge(plan, out))
    report = measure("verify from the source", lambda: verify(out, source=resolve_source(source)))
    assert report.passed, report.describe()
    embedder = measure("load in vLLM", lambda: Embedder.load(out))
    with embedder:
        (page,) = pages(1)
        words = texts(WORKLOADS["text-64"], 4)
        (vector,) = measure("one page, first", lambda: embedder.encode_image([page]))
        measure("one page", lambda: embedder.encode_image(page))
        (multi,) = measure(
            "one page, multi-vector", lambda: embedder.encode_image([page], return_multivector=True)
        )
        measure("one text of 64 tokens", lambda: embedder.encode_text(words[0], max_length=64))
        measure("four texts of 64 tokens", lambda: embedder.encode_text(words, max_length=64))
        print(f"page: single {tuple(vector.shape)}, multi-vector {tuple(multi.shape)}")


def _measured(name: str, call: Callable[[], T]) -> tuple[T, Step]:
    """Run `call` while a thread watches this process and its children."""
    peaks = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_S):
            peaks.append(_held_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        value = call()
    finally:
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
    return value, Step(name, seconds, max(*peaks, _held_bytes()))


def _held_bytes() -> int:
    """Proportional set size: what the processes share counts once."""
    held = 0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            held += process.memory_full_info().pss
        except psutil.Error:
            continue  # it ended meanwhile
    return held


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="on a disk with 16 GB free")
    parser.add_argument("--shape", choices=SHAPES, default="full")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
