"""Who may use the engine next: a bounded queue in front of it, fair between callers.

An engine takes what it is given first come, first served, so whoever sends 2048 texts would hold
everybody else up. Here work waits in pieces, and turns are given by start-time fair queueing (Goyal, Vin
and Cheng, "Start-time Fair Queueing", SIGCOMM 1996): first among callers, then among one caller's
calls, each by the tokens it has had. What may wait is bounded in tokens. Knows tokens and names of
callers; not what is computed.
"""

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field

from serving.errors import QueueFullError

_MIN_RETRY_S = 1.0
_MAX_RETRY_S = 60.0
_UNKNOWN_SPEED_RETRY_S = 5.0
# The time in which what is known of the engine's speed fades to 1/e, and the least it is known from.
_SPEED_MEMORY_S = 10.0
_MIN_SPEED_S = 1.0

_NOTHING: AbstractContextManager[None] = nullcontext()


@dataclass(frozen=True, slots=True)
class Flow:
    """One call of one caller; pieces of one flow are served in their order.

    Attributes:
        caller: callers share the engine evenly.
        call: calls of one caller share what it gets evenly; unique among those that wait.
        waiting: entered while a piece waits for its turn; pieces overlap.
        running: entered while a piece has its turn.
    """

    caller: str
    call: str
    waiting: AbstractContextManager[None] = _NOTHING
    running: AbstractContextManager[None] = _NOTHING


@dataclass(slots=True)
class _Caller:
    """What one caller waits for.

    Attributes:
        start: virtual time of its next turn among the callers.
        now: virtual time among its own calls.
        calls: of each call that waits, the virtual time at which it has had what it asked for so far,
            and its waiting pieces.
        waiting: pieces by virtual start, then arrival.
    """

    start: float
    now: float = 0.0
    calls: dict[str, tuple[float, int]] = field(default_factory=dict)
    waiting: "list[tuple[float, int, _Piece]]" = field(default_factory=list)

    def pop(self) -> None:
        """Take the first waiting piece out."""
        _, _, piece = heapq.heappop(self.waiting)
        finish, num_pieces = self.calls.pop(piece.call)
        if num_pieces > 1:
            self.calls[piece.call] = (finish, num_pieces - 1)


@dataclass(slots=True, eq=False)
class _Piece:
    num_tokens: int
    call: str
    turn: asyncio.Future[None]


class TurnQueue:
    """Turns at one engine, for one event loop.

    Args:
        max_running_tokens: held by the engine at once; a larger piece runs alone.
        max_queued_tokens: of all calls that were let in.
        max_queue_s: time that these may take, going by the speed at which work left lately.
        max_piece_tokens: of a call that takes a turn at once, unless one prompt is longer.
        max_piece_prompts: of a call that take a turn at once.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        max_running_tokens: int,
        max_queued_tokens: int,
        max_queue_s: float = math.inf,
        max_piece_tokens: int = 8192,
        max_piece_prompts: int = 256,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_piece_tokens = max_piece_tokens
        self._max_piece_prompts = max_piece_prompts
        self._max_running_tokens = max_running_tokens
        self._max_queued_tokens = max_queued_tokens
        self._max_queue_s = max_queue_s
        self._clock = clock
        self._callers: dict[str, _Caller] = {}
        self._virtual_time = 0.0
        self._arrivals = itertools.count()
        self._speed = _Speed(clock)
        self.on_turn: Callable[[int, int], None] | None = None
        """Told the prompts and tokens of every piece that gets its turn."""
        self.queued_tokens: int = 0
        """Tokens of all calls that were let in and have not ended, running ones included."""
        self.running_tokens: int = 0
        """Tokens that the engine has now."""

    @property
    def is_full(self) -> bool:
        """Whether no call would be let in now, however small."""
        return self._is_over(self.queued_tokens + 1)

    def pieces(self, sizes: Sequence[int]) -> list[slice]:
        """Cut a call whose prompts have `sizes` tokens into neighbours that take turns together."""
        pieces: list[slice] = []
        start = num_tokens = 0
        for at, size in enumerate(sizes):
            full = at - start >= self._max_piece_prompts
            if at > start and (full or num_tokens + size > self._max_piece_tokens):
                pieces.append(slice(start, at))
                start, num_tokens = at, 0
            num_tokens += size
        if start < len(sizes):
            pieces.append(slice(start, len(sizes)))
        return pieces

    @contextmanager
    def place(self, num_tokens: int) -> Iterator[None]:
        """Room in the queue for a whole call, until it ends.

        A call larger than the queue is let in when nothing else waits; otherwise it never could be.

        Raises:
            QueueFullError: there is no room; nothing was taken.
        """
        if self._is_over(self.queued_tokens + num_tokens):
            raise self.full()
        self.queued_tokens += num_tokens
        try:
            yield
        finally:
            self.queued_tokens -= num_tokens

    def full(self) -> QueueFullError:
        """The error for a call that finds no room, with the time in which there should be some."""
        wait_s = self._speed.seconds_for(self.queued_tokens)
        room_s = (_UNKNOWN_SPEED_RETRY_S if wait_s is None else wait_s) / 2
        return QueueFullError(
            f"{self.queued_tokens} tokens are waiting already, as many as may. Try again later.",
            retry_after_s=min(max(room_s, _MIN_RETRY_S), _MAX_RETRY_S),
        )

    def _is_over(self, num_tokens: int) -> bool:
        """Whether `num_tokens` are more than may wait; whoever comes to an empty queue is let in."""
        if not self.queued_tokens:
            return False
        wait_s = self._speed.seconds_for(num_tokens)
        return num_tokens > self._max_queued_tokens or (
            wait_s is not None and wait_s > self._max_queue_s
        )

    @asynccontextmanager
    async def turn(
        self, flow: Flow, num_tokens: int, *, num_prompts: int = 1
    ) -> AsyncIterator[None]:
        """Wait for a turn, and hold `num_tokens` of the engine meanwhile; cancelling gives it up."""
        piece = _Piece(num_tokens, flow.call, asyncio.get_running_loop().create_future())
        self._enqueue(flow, piece)
        self._give_turns()
        try:
            with flow.waiting:
                await piece.turn
        except asyncio.CancelledError:
            if piece.turn.done() and not piece.turn.cancelled():
                # The turn came in the same moment.
                self._end(piece)
            raise
        if self.on_turn is not None:
            self.on_turn(num_prompts, num_tokens)
        try:
            with flow.running:
                yield
        finally:
            self._end(piece)

    def _enqueue(self, flow: Flow, piece: _Piece) -> None:
        caller = self._callers.get(flow.caller)
        if caller is None:
            caller = self._callers[flow.caller] = _Caller(start=self._virtual_time)
        if not caller.waiting:
            # Time in which it wanted nothing is not saved up.
            caller.start = max(caller.start, self._virtual_time)
        finish, num_pieces = caller.calls.get(flow.call, (0.0, 0))
        start = max(caller.now, finish)
        caller.calls[flow.call] = (start + piece.num_tokens, num_pieces + 1)
        heapq.heappush(caller.waiting, (start, next(self._arrivals), piece))

    def _give_turns(self) -> None:
        self._grant()
        self._speed.note(is_full=any(caller.waiting for caller in self._callers.values()))

    def _grant(self) -> None:
        while (found := self._next()) is not None:
            caller, start, piece = found
            if self.running_tokens and (
                self.running_tokens + piece.num_tokens > self._max_running_tokens
            ):
                # Whoever is next waits for room, or small calls would pass large ones for ever.
                return
            caller.pop()
            caller.now = start
            self._virtual_time = caller.start
            caller.start += piece.num_tokens
            self.running_tokens += piece.num_tokens
            piece.turn.set_result(None)

    def _next(self) -> tuple[_Caller, float, _Piece] | None:
        for name, caller in list(self._callers.items()):
            while caller.waiting and caller.waiting[0][2].turn.cancelled():
                caller.pop()
            if not caller.waiting and caller.start <= self._virtual_time:
                # It has had no more than anybody else: nothing about it need be remembered.
                del self._callers[name]
        waiting = [caller for caller in self._callers.values() if caller.waiting]
        if not waiting:
            return None
        caller = min(waiting, key=lambda one: one.start)
        start, _, piece = caller.waiting[0]
        return caller, start, piece

    def _end(self, piece: _Piece) -> None:
        self.running_tokens -= piece.num_tokens
        self._speed.ended(piece.num_tokens)
        self._give_turns()


class _Speed:
    """Tokens a second that leave the engine while it has more than it can take, the past fading.

    Only then is it a measure of the engine; otherwise it would be one of its callers.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens = 0.0
        self._seconds = 0.0
        self._since = clock()
        self._is_full = False

    def ended(self, num_tokens: int) -> None:
        """A piece of the engine's has ended."""
        self._pass_time()
        if self._is_full:
            self._tokens += num_tokens

    def note(self, *, is_full: bool) -> None:
        """Whether something waits from now on."""
        self._pass_time()
        self._is_full = is_full

    def seconds_for(self, num_tokens: int) -> float | None:
        """Seconds for `num_tokens`; None when the engine was not full long enough to know."""
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
        self._since = now
