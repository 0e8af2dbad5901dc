"""`polyvec` run in the test's own process, as its console script runs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Done:
    """What a run of the command left: exit status and what it printed."""

    returncode: int
    stdout: str
    stderr: str


Polyvec = Callable[..., Done]
