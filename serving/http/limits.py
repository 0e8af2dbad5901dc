"""Requests and tokens a minute, for each caller: charged before the work, given back if it fails.

    async with limits.request(caller) as charge:
        await charge.tokens(num_tokens)
        ...

Charging first keeps any number of requests at once within the limit, and leaving by an exception (a
cancellation too) gives everything back, so that failed requests cost nothing.

The counters are those of the `limits` library, under names of our own, one for each caller and minute. Its
strategies are not used, for they cannot give back: the sliding one moves the counts of a minute to another
name when the minute ends, so that a negative cost after that lowers the new minute's count, below zero if
need be, which is quota that was never taken; the fixed one keeps what it refused, and lets twice the limit
pass around the end of a minute; the moving one keeps an entry for each token. With the minute in the name,
what is given back late lowers the count it was taken from, and nothing else.

Does not know keys, requests at once, or what a token is.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import assert_never

from serving.http.caller import Caller
from serving.http.errors import HttpError
from serving.http.limits_storage import LimitsStorage
from serving.http.limits_window import WINDOW_S, LimitKind, Standing

# A minute's count is read until the next one ends; the third is for clocks that differ.
_KEPT_S = 3 * WINDOW_S

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What one charge added to which counter, and the limit after it."""

    key: str
    amount: int
    standing: Standing


class RateLimits:
    """Counts what callers use.

    Args:
        storage: where the counters are; servers with the same one share every limit.
        clock: seconds since the epoch. Servers that share a storage need clocks that agree to a second.
    """

    def __init__(self, storage: LimitsStorage, *, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._clock = clock

    @asynccontextmanager
    async def request(self, caller: Caller) -> "AsyncIterator[Charge]":
        """Charge one request; leaving by an exception gives back all that was charged inside.

        Raises:
            HttpError: 429 RATE_REQUEST_LIMIT_EXCEEDED; 503, while the storage does not answer.
        """
        charge = Charge(self, self._storage, caller)
        succeeded = False
        try:
            await charge.take(LimitKind.REQUESTS, 1)
            yield charge
            succeeded = True
        finally:
            if not succeeded:
                await charge.refund()

    async def headers(self, caller: Caller) -> dict[str, str]:
        """`X-RateLimit-*` for each limit the caller has, read now; `Charge.headers` needs no reading.

        Raises:
            HttpError: 503, while the storage does not answer.
        """
        found: dict[str, str] = {}
        for kind in LimitKind:
            limit = limit_of(caller, kind)
            if limit is not None:
                found |= (await self._standing(caller, kind, limit, self._clock())).headers()
        return found

    async def take(self, caller: Caller, kind: LimitKind, limit: int, amount: int) -> _Taken:
        """Add `amount` to what the caller used, or leave it as it was and raise 429."""
        counters = self._storage.counters
        now_s = self._clock()
        before = await self._standing(caller, kind, limit, now_s)
        # Looked at first, so that what is refused seldom stands in the way of what would fit.
        if before.used + amount > limit:
            raise _exceeded(before, amount)
        key = _key(caller, kind, now_s // WINDOW_S)
        count = await self._storage.ask(lambda: counters.incr(key, _KEPT_S, amount))
        after = replace(before, current=count)
        if after.used > limit:
            await self._lower(key, amount)
            raise _exceeded(replace(after, current=max(0, count - amount)), amount)
        return _Taken(key, amount, after)

    async def give_back(self, takes: "list[asyncio.Task[_Taken]]") -> None:
        """Undo those of `takes` that were counted, or will be."""
        for take in takes:
            await asyncio.wait([take])
            if take.cancelled() or take.exception() is not None:
                continue
            taken = take.result()
            try:
                await self._lower(taken.key, taken.amount)
            except HttpError:
                # Why is in the log already; the count ends with its minute.
                logger.warning("A failed request stays counted: the limits' storage is away.")

    async def _standing(
        self, caller: Caller, kind: LimitKind, limit: int, now_s: float
    ) -> Standing:
        minute, elapsed_s = divmod(now_s, WINDOW_S)
        last, this = _key(caller, kind, minute - 1), _key(caller, kind, minute)
        previous = await self._storage.ask(lambda: self._storage.counters.get(last))
        current = await self._storage.ask(lambda: self._storage.counters.get(this))
        return Standing(kind, limit, max(0, previous), max(0, current), elapsed_s)

    async def _lower(self, key: str, amount: int) -> None:
        counters = self._storage.counters
        left = await self._storage.ask(lambda: counters.incr(key, _KEPT_S, -amount))
        if left < 0:
            # The counter was lost in between (Redis started empty): what is below zero was never taken.
            await self._storage.ask(lambda: counters.incr(key, _KEPT_S, min(amount, -left)))


class Charge:
    """What one request was charged."""

    def __init__(self, limits: RateLimits, storage: LimitsStorage, caller: Caller) -> None:
        self._limits = limits
        self._storage = storage
        self._caller = caller
        self._takes: list[asyncio.Task[_Taken]] = []
        self._standings: dict[LimitKind, Standing] = {}

    async def tokens(self, num_tokens: int) -> None:
        """Charge tokens, over what was charged already.

        Raises:
            HttpError: 429 RATE_TOKEN_LIMIT_EXCEEDED; 503, while the storage does not answer.
        """
        await self.take(LimitKind.TOKENS, num_tokens)

    async def take(self, kind: LimitKind, amount: int) -> None:
        """Charge `amount`, if the caller has such a limit."""
        limit = limit_of(self._caller, kind)
        if limit is None:
            return
        if amount > limit:
            raise _never(kind, limit, amount)
        # Finished even when we are cancelled here: `refund` then knows whether it was counted.
        take = self._storage.start(self._limits.take(self._caller, kind, limit, amount))
        self._takes.append(take)
        self._standings[kind] = (await asyncio.shield(take)).standing

    async def refund(self) -> None:
        """Give everything back; goes on when the caller of this is cancelled."""
        takes, self._takes = self._takes, []
        if takes:
            await asyncio.shield(self._storage.start(self._limits.give_back(takes)))

    def headers(self) -> dict[str, str]:
        """`X-RateLimit-*` for each limit charged, as of the charge."""
        found: dict[str, str] = {}
        for standing in self._standings.values():
            found |= standing.headers()
        return found


def limit_of(caller: Caller, kind: LimitKind) -> int | None:
    """The caller's limit of that kind."""
    match kind:
        case LimitKind.REQUESTS:
            return caller.limits.requests_per_minute
        case LimitKind.TOKENS:
            return caller.limits.tokens_per_minute
        case _:
            assert_never(kind)


def _key(caller: Caller, kind: LimitKind, minute: float) -> str:
    return f"{kind.lower()}/{caller.name}/{int(minute)}"


def _code(kind: LimitKind) -> str:
    match kind:
        case LimitKind.REQUESTS:
            return "RATE_REQUEST_LIMIT_EXCEEDED"
        case LimitKind.TOKENS:
            return "RATE_TOKEN_LIMIT_EXCEEDED"
        case _:
            assert_never(kind)


def _exceeded(standing: Standing, amount: int) -> HttpError:
    wait_s = standing.wait_s(amount)
    kind = standing.kind.lower()
    return HttpError(
        429,
        _code(standing.kind),
        f"This API key may use {standing.limit} {kind} a minute, {standing.used} are used and this request "
        f"needs {amount}. Try again in {wait_s} s.",
        retry_after_s=wait_s,
        headers=standing.headers(),
    )


def _never(kind: LimitKind, limit: int, amount: int) -> HttpError:
    return HttpError(
        429,
        _code(kind),
        f"This request needs {amount} {kind.lower()}, and this API key may use {limit} in a whole minute: "
        "it can never pass. Send fewer inputs at once.",
        retry_after_s=WINDOW_S,
        # OpenAI's clients repeat what got 429, unless told not to.
        headers={"X-Should-Retry": "false"},
    )
