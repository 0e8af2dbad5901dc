"""What may wait for an engine: bounded in tokens and in time, and shared by those who wait.

Knows tokens and names of callers; not in which order they are served (`serving.turns`).
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from serving.errors import QueueFullError

_MIN_RETRY_S = 1.0
_MAX_RETRY_S = 60.0
_UNKNOWN_SPEED_RETRY_S = 5.0
# The time in which what is known of the engine's speed fades to 1/e, the least it is known from, and the
# time without any news after which it is not known any more.
_SPEED_MEMORY_S = 10.0
_MIN_SPEED_S = 1.0
_STALE_S = 60.0
# How much one call moves what calls usually have, and the most of the bound that a usual call is taken for.
_USUAL_WEIGHT = 1 / 16
_MAX_USUAL_SHARE = 1 / 20
# So many small calls fit into what may wait.
_SMALL_CALLS = 20


class Admission:
    """Room for calls.

    While there is room, whoever comes is let in. When there is none, a caller is let in that waits for less than
    its share of the bounds, and a small call whose caller does, its largest call aside: one large call keeps
    neither other callers out nor its own caller's small ones.

    Args:
        max_tokens: of all calls that were let in.
        max_wait_s: time that these may take, going by the speed at which work left lately.
        free_tokens: as many as the engine takes at once; they do not wait.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        max_tokens: int,
        max_wait_s: float = math.inf,
        free_tokens: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_tokens = max_tokens
        self._max_wait_s = max_wait_s
        self.free_tokens: int = free_tokens
        """As many as the engine takes at once; they do not wait."""
        self._held = _Held()
        self._expected = _Held()
        self._usual_tokens = 0.0
        self.speed: Speed = Speed(clock)
        """How fast the engine is."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all calls that were let in and have not ended."""
        return self._held.num_tokens

    def place(self, caller: str, num_tokens: int) -> AbstractContextManager[None]:
        """Room for a whole call, while the block that is entered with it lasts.

        A call larger than the bounds is let in when nothing else is; otherwise it never could be.

        Raises:
            QueueFullError: there is no room; nothing was taken.
        """
        self.check(caller, num_tokens)
        return _Counted(self._held, caller, num_tokens)

    def check(self, caller: str, num_tokens: int) -> None:
        """Learn of a call's size, and refuse it if there is no room.

        Raises:
            QueueFullError: there is none.
        """
        self._usual_tokens += _USUAL_WEIGHT * (num_tokens - self._usual_tokens)
        if (full := self.refusal(caller, num_tokens)) is not None:
            raise full

    def expected(self, caller: str) -> AbstractContextManager[None]:
        """Room for a call while its tokens are being counted, in the block, as for one of the usual size.

        Otherwise all that come while there is room for one would be tokenised, and all but one then refused,
        late.

        Raises:
            QueueFullError: such a call finds no room; nothing was taken.
        """
        if (full := self.usual_refusal(caller)) is not None:
            raise full
        return _Counted(self._expected, caller, self._usual())

    def refusal(self, caller: str, num_tokens: int) -> QueueFullError | None:
        """Why a call of `caller` would not be let in now, with the time in which it should be."""
        return self._refusal(caller, num_tokens, _NOTHING, small=num_tokens * _SMALL_CALLS)

    def _refusal(
        self, caller: str, num_tokens: int, expected: "_Held", *, small: int
    ) -> QueueFullError | None:
        """See `refusal`; `small` is what must have room for a call to count as a small one."""
        counted = self.num_tokens + expected.num_tokens
        if not counted or not self._is_over(counted + num_tokens):
            return None
        # What it would be if everybody who waits, waited for as much as this caller.
        num_callers = len({caller, *self._held.tokens, *expected.tokens})
        own_tokens = self._held.of(caller) + expected.of(caller) + num_tokens
        if not self._is_over(own_tokens * num_callers):
            return None
        # And what it would be if its largest call were like this one.
        largest = max(self._held.calls.get(caller, ()), default=0)
        own_tokens -= max(0, largest - num_tokens)
        if not self._is_over(max(own_tokens, small) * num_callers):
            return None
        wait_s = self.speed.seconds_for(counted)
        room_s = _UNKNOWN_SPEED_RETRY_S if wait_s is None else wait_s / 2
        return QueueFullError(
            f"The queue is full: {counted} tokens wait already. Try again later.",
            retry_after_s=min(max(room_s, _MIN_RETRY_S), _MAX_RETRY_S),
        )

    def usual_refusal(self, caller: str) -> QueueFullError | None:
        """Why a call of the usual size would not be let in now: for who has not read it yet.

        A full queue floats just below its bound. Were there room for the smallest call, nearly all
        would be read and tokenised before they are refused, which costs what answering them should.
        """
        # How large it is, is a guess: it may be a small one.
        return self._refusal(caller, self._usual(), self._expected, small=0)

    def _usual(self) -> int:
        return max(1, int(min(self._usual_tokens, self._max_tokens * _MAX_USUAL_SHARE)))

    def _is_over(self, num_tokens: int) -> bool:
        if num_tokens > self._max_tokens:
            return True
        wait_s = self.speed.seconds_for(num_tokens)
        return num_tokens > self.free_tokens and wait_s is not None and wait_s > self._max_wait_s


class _Held:
    """Tokens and calls, of all callers and of each that has any."""

    def __init__(self) -> None:
        self.num_tokens = 0
        self.tokens: dict[str, int] = {}
        self.calls: dict[str, list[int]] = {}
        """Tokens of each call."""

    def of(self, caller: str) -> int:
        """Tokens of one caller."""
        return self.tokens.get(caller, 0)


_NOTHING = _Held()


class _Counted:
    """Counts one call while a block lasts; a class is entered and left sooner than a generator."""

    __slots__ = ("_caller", "_held", "_num_tokens")

    def __init__(self, held: _Held, caller: str, num_tokens: int) -> None:
        self._held = held
        self._caller = caller
        self._num_tokens = num_tokens

    def __enter__(self) -> None:
        held = self._held
        held.num_tokens += self._num_tokens
        held.tokens[self._caller] = held.of(self._caller) + self._num_tokens
        held.calls.setdefault(self._caller, []).append(self._num_tokens)

    def __exit__(self, *error: object) -> None:
        held = self._held
        held.num_tokens -= self._num_tokens
        held.tokens[self._caller] -= self._num_tokens
        held.calls[self._caller].remove(self._num_tokens)
        if not held.calls[self._caller]:
            del held.tokens[self._caller], held.calls[self._caller]


class Speed:
    """Tokens a second that leave the engine while it has more than it can take, the past fading.

    Only then is it a measure of the engine; otherwise it would be one of its callers.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens = 0.0
        self._seconds = 0.0
        self._since = clock()
        self._last_full = self._since
        self._is_full = False

    def ended(self, num_tokens: int) -> None:
        """`num_tokens` of the engine's were computed."""
        self._pass_time()
        if self._is_full:
            self._tokens += num_tokens

    def note(self, *, is_full: bool) -> None:
        """Whether something waits from now on."""
        self._pass_time()
        self._is_full = is_full

    def seconds_for(self, num_tokens: int) -> float | None:
        """Seconds for `num_tokens`; None when the engine was not full long or lately enough to know."""
        self._pass_time()
        if self._seconds < _MIN_SPEED_S or self._tokens < 1:
            return None
        return num_tokens * self._seconds / self._tokens

    def _pass_time(self) -> None:
        now = self._clock()
        if self._is_full:
            kept = math.exp((self._since - now) / _SPEED_MEMORY_S)
            self._tokens *= kept
            self._seconds = self._seconds * kept + _SPEED_MEMORY_S * (1 - kept)
            self._last_full = now
        elif now - self._last_full > _STALE_S:
            self._tokens = self._seconds = 0.0
        self._since = now
