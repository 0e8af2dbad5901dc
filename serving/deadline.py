"""Until when an answer is of use to whoever waits for it; travels with the call, also to other machines.

Knows clocks, not what is waited for. Cancelling at the deadline is done by whoever set it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_deadline_s: ContextVar[float | None] = ContextVar("polyvec_deadline_s", default=None)


@contextmanager
def deadline(timeout_s: float) -> Iterator[None]:
    """What is called in the block, and in tasks that it starts, has `timeout_s` from now."""
    token = _deadline_s.set(time.monotonic() + timeout_s)
    try:
        yield
    finally:
        _deadline_s.reset(token)


def remaining_s() -> float | None:
    """Seconds left to the current call, at least 0; None without a deadline."""
    at = _deadline_s.get()
    return None if at is None else max(0.0, at - time.monotonic())
