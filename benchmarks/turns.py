"""What a contender gives: the time of each of its calls, and how it is taken; or why there is none.

A contender runs in a process of its own, so its turns travel as a file. This module knows of no contender.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.load.cpu import cpu_seconds
from benchmarks.workloads import WORKLOADS, Workload, pages, texts

Encode = Callable[[Workload, Sequence[Any]], int]
"""Embeds all items of a workload; returns how many vectors it made."""


class UnavailableError(Exception):
    """This machine, checkpoint or release cannot run the contender; the message says why."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One call over all items of a workload.

    Attributes:
        seconds: wall time.
        cpu_seconds: processor time of this process and all below it.
        feeding_seconds: the part of it that is not vLLM's processes': tokenising, preparing, asking, and
            pooling where that is done outside.
    """

    seconds: float
    cpu_seconds: float
    feeding_seconds: float


Turns = dict[str, list[Turn]]
"""By workload."""


def measure(
    options: argparse.Namespace,
    encode: Encode,
    can: Callable[[Workload], bool] = lambda workload: True,
) -> Turns:
    """Warm up and time every workload that was asked for and that `can` lets through."""
    measured: Turns = {}
    for name in options.workload:
        workload = WORKLOADS[name]
        if not can(workload):
            continue
        num_items = workload.num_items(options.scale)
        items = pages(num_items) if workload.is_page else texts(workload, num_items)
        # Compiles and allocates what these shapes need.
        encode(workload, items[: max(2, num_items // 8)])
        turns = []
        for _ in range(options.repeat):
            before = cpu_seconds(os.getpid())
            started = time.perf_counter()
            made = encode(workload, items)
            seconds = time.perf_counter() - started
            spent = cpu_seconds(os.getpid()) - before
            turns.append(Turn(seconds, spent.total, spent.api))
            assert made == num_items
        measured[name] = turns
    return measured


def write_turns(path: Path, run: Callable[[], Turns]) -> None:
    """Write the turns of `run`, or why it is not available."""
    try:
        turns = {name: [asdict(turn) for turn in row] for name, row in run().items()}
        document: dict[str, Any] = {"turns": turns}
    except UnavailableError as reason:
        document = {"unavailable": str(reason)}
    path.write_text(json.dumps(document), encoding="utf-8")


def read_turns(path: Path) -> Turns:
    """What `write_turns` wrote.

    Raises:
        UnavailableError: the contender was.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    if "unavailable" in document:
        raise UnavailableError(document["unavailable"])
    return {name: [Turn(**turn) for turn in row] for name, row in document["turns"].items()}
