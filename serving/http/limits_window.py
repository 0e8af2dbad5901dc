"""How much of one limit is used, from the counts of two minutes: a sliding window counter, as arithmetic.

    used = floor(previous * (1 - elapsed / 60)) + current

counts the last 60 seconds, if what was used in the minute before this one was used evenly; it is what
`limits` calls sliding-window-counter. Does not know where the counts are kept.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, floor

WINDOW_S = 60


class LimitKind(StrEnum):
    """What is counted in a minute; as the headers spell it."""

    REQUESTS = "Requests"
    TOKENS = "Tokens"


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit at one moment.

    Attributes:
        kind: what is counted.
        limit: how much may be used in a minute.
        previous: used in the minute before this one.
        current: used in this minute.
        elapsed_s: how much of this minute has gone.
    """

    kind: LimitKind
    limit: int
    previous: int
    current: int
    elapsed_s: float

    @property
    def used(self) -> int:
        """What counts as used in the last 60 seconds."""
        return floor(self.previous * (1 - self.elapsed_s / WINDOW_S)) + self.current

    def wait_s(self, amount: int) -> int:
        """Whole seconds, at least 1, after which `amount` fits if nothing else is used; `limit` bounds it."""
        # floor(x) <= room is x < room + 1, hence the time at which `previous` has faded far enough.
        room = self.limit - self.current - amount
        if room >= 0:
            wait_s = _faded_s(self.previous, room) - self.elapsed_s
        else:
            # Not in this minute: in the next one `current` fades.
            wait_s = WINDOW_S - self.elapsed_s + _faded_s(self.current, self.limit - amount)
        return max(1, floor(wait_s) + 1)

    def headers(self) -> dict[str, str]:
        """`X-RateLimit-*`; Reset is the seconds until nothing of what is used counts any more."""
        if self.current > 0:
            reset_s = 2 * WINDOW_S - self.elapsed_s
        elif self.previous > 0:
            reset_s = WINDOW_S - self.elapsed_s
        else:
            reset_s = 0.0
        return {
            f"X-RateLimit-Limit-{self.kind}": str(self.limit),
            f"X-RateLimit-Remaining-{self.kind}": str(max(0, self.limit - self.used)),
            f"X-RateLimit-Reset-{self.kind}": str(ceil(reset_s)),
        }


def _faded_s(count: int, room: int) -> float:
    return 0.0 if count <= room else WINDOW_S * (1 - (room + 1) / count)
