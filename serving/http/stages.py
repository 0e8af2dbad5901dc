"""Where one request's time went: the stages it passes, and how long it was in each.

Knows no metrics, logs or traces; those read what is measured here.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType


class Stage(StrEnum):
    """A part of the way from a body's bytes to an answer's bytes."""

    PARSE = "parse"
    FETCH = "fetch"
    PREPARE = "prepare"
    QUEUE = "queue"
    ENGINE = "engine"
    ENCODE = "encode"


@dataclass(frozen=True, slots=True)
class StageTime:
    """One stage of one request.

    Attributes:
        stage: which.
        started_ns: when it was first entered, in nanoseconds of the Unix epoch.
        ended_ns: when it was last left.
        busy_s: time within these in which the request was in the stage at all.
    """

    stage: Stage
    started_ns: int
    ended_ns: int
    busy_s: float


class Measurement:
    """One stage's clock: runs while at least one `with` block of it is open, in any task or thread."""

    __slots__ = ("_busy_ns", "_entered_ns", "_first_ns", "_last_ns", "_lock", "_num_open")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_open = 0
        self._busy_ns = 0
        self._entered_ns = 0
        self._first_ns = 0
        self._last_ns = 0

    def __enter__(self) -> None:
        now_ns = time.perf_counter_ns()
        with self._lock:
            if self._num_open == 0:
                self._entered_ns = now_ns
                self._first_ns = self._first_ns or now_ns
            self._num_open += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        now_ns = time.perf_counter_ns()
        with self._lock:
            self._num_open -= 1
            if self._num_open == 0:
                self._busy_ns += now_ns - self._entered_ns
                self._last_ns = now_ns

    def read(self) -> tuple[int, int, int]:
        """First entered, last left and busy time so far, in `perf_counter` nanoseconds.

        A stage that is still open, as when a deadline passed, counts until now.
        """
        now_ns = time.perf_counter_ns()
        with self._lock:
            if self._num_open == 0:
                return self._first_ns, self._last_ns, self._busy_ns
            return self._first_ns, now_ns, self._busy_ns + now_ns - self._entered_ns


class Stages:
    """The stages of one request; made when the request begins.

    with stages.measure(Stage.PARSE):
        ...

    Blocks of one stage may nest and overlap, as concurrent fetches do: the time is that in which at
    least one was open, so that no stage is longer than its request.
    """

    __slots__ = ("_epoch_ns", "_measurements", "started_ns")

    def __init__(self) -> None:
        self.started_ns = time.time_ns()
        # Everything is measured on the monotonic clock; a step of the system's clock moves no stage.
        self._epoch_ns = self.started_ns - time.perf_counter_ns()
        self._measurements: dict[Stage, Measurement] = {}

    def measure(self, stage: Stage) -> Measurement:
        """The context manager that counts the time in it towards `stage`."""
        # setdefault is atomic, should two threads enter a stage for the first time at once.
        return self._measurements.get(stage) or self._measurements.setdefault(stage, Measurement())

    @property
    def seconds(self) -> dict[Stage, float]:
        """Seconds in each stage that was entered, in the order of first entry."""
        return {time.stage: time.busy_s for time in self.times()}

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request began."""
        return (self._epoch_ns + time.perf_counter_ns() - self.started_ns) / 1e9

    def times(self) -> Iterator[StageTime]:
        """Every stage that was entered."""
        for stage, measurement in tuple(self._measurements.items()):
            first_ns, last_ns, busy_ns = measurement.read()
            if first_ns:
                yield StageTime(
                    stage, self._epoch_ns + first_ns, self._epoch_ns + last_ns, busy_ns / 1e9
                )
