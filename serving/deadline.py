"""Until when an answer is of use to whoever waits for it; travels with the call, also to other machines.

Knows clocks, not what is waited for. Cancelling at the deadline is done by whoever set it.
"""

import time
from contextvars import ContextVar, Token

_deadline_s: ContextVar[float | None] = ContextVar("polyvec_deadline_s", default=None)


class deadline:  # noqa: N801 - read as a statement: `with deadline(5.0):`
    """What is called in the block, and in tasks that it starts, has `timeout_s` from its beginning."""

    __slots__ = ("_timeout_s", "_token")

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def __enter__(self) -> None:
        self._token: Token[float | None] = _deadline_s.set(time.monotonic() + self._timeout_s)

    def __exit__(self, *error: object) -> None:
        _deadline_s.reset(self._token)


def remaining_s() -> float | None:
    """Seconds left to the current call, at least 0; None without a deadline."""
    at = _deadline_s.get()
    return None if at is None else max(0.0, at - time.monotonic())
