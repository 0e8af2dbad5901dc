"""Who may use the engine next: a queue in front of it, fair between callers.

An engine takes what it is given first come, first served, so whoever sends 2048 texts would hold
everybody else up. Here work waits in pieces, and turns are given by start-time fair queueing (Goyal, Vin
and Cheng, "Start-time Fair Queueing", SIGCOMM 1996): first among callers, then among one caller's
calls, each by the tokens it has had. Knows tokens and names of callers; not how much may wait
(`serving.admission`), nor what is computed.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType

from serving.admission import Admission
from serving.neighbours import neighbours

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
        admission: told how fast the engine is.
        max_piece_tokens: of a call that takes a turn at once, unless one prompt is longer.
        max_piece_prompts: of a call that take a turn at once.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        max_running_tokens: int,
        admission: Admission,
        max_piece_tokens: int = 8192,
        max_piece_prompts: int = 256,
    ) -> None:
        self.admission = admission
        self._max_piece_tokens = max_piece_tokens
        self._max_piece_prompts = max_piece_prompts
        self._max_running_tokens = max_running_tokens
        self._callers: dict[str, _Caller] = {}
        self._virtual_time = 0.0
        self._arrivals = itertools.count()
        self.on_turn: Callable[[int, int], None] | None = None
        """Told the prompts and tokens of every piece that gets its turn."""
        self.running_tokens: int = 0
        """Tokens that the engine has now."""

    def resize(self, max_running_tokens: int) -> None:
        """Let the engine hold another number of tokens, as when there are more of it or fewer."""
        if max_running_tokens != self._max_running_tokens:
            self._max_running_tokens = max_running_tokens
            self.admission.free_tokens = max_running_tokens
            self._give_turns()

    def pieces(self, sizes: Sequence[int]) -> list[slice]:
        """Cut a call whose prompts have `sizes` tokens into neighbours that take turns together."""
        return neighbours(
            sizes, max_size=self._max_piece_tokens, max_number=self._max_piece_prompts
        )

    def turn(
        self, flow: Flow, num_tokens: int, *, num_prompts: int = 1
    ) -> AbstractAsyncContextManager[None]:
        """Wait for a turn, and hold `num_tokens` of the engine in the block; cancelling gives it up."""
        return _Turn(self, flow, num_tokens, num_prompts)

    async def _wait(self, flow: Flow, piece: _Piece, num_prompts: int) -> None:
        self._enqueue(flow, piece)
        self._give_turns()
        try:
            with flow.waiting:
                await piece.turn
        except asyncio.CancelledError:
            if piece.turn.done() and not piece.turn.cancelled():
                # The turn came in the same moment.
                self._end(piece, computed=False)
            else:
                # It may have been the one for which there was no room yet.
                self._give_turns()
            raise
        if self.on_turn is not None:
            self.on_turn(num_prompts, piece.num_tokens)

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
        is_full = any(caller.waiting for caller in self._callers.values())
        if not is_full:
            # Who waits for nobody need not be remembered: shares are of what is wanted at once.
            self._callers.clear()
        self.admission.speed.note(is_full=is_full)

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

    def _end(self, piece: _Piece, *, computed: bool) -> None:
        self.running_tokens -= piece.num_tokens
        self.admission.speed.ended(piece.num_tokens if computed else 0)
        self._give_turns()


class _Turn:
    """One turn, in whose block the engine is held; a class is entered and left sooner than a generator."""

    __slots__ = ("_flow", "_num_prompts", "_num_tokens", "_piece", "_queue")

    def __init__(self, queue: TurnQueue, flow: Flow, num_tokens: int, num_prompts: int) -> None:
        self._queue = queue
        self._flow = flow
        self._num_tokens = num_tokens
        self._num_prompts = num_prompts

    async def __aenter__(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._piece = _Piece(self._num_tokens, self._flow.call, turn)
        await self._queue._wait(self._flow, self._piece, self._num_prompts)
        self._flow.running.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._flow.running.__exit__(kind, error, traceback)
        finally:
            self._queue._end(self._piece, computed=kind is None)
