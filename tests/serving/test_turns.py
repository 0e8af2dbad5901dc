import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from serving import QueueFullError
from serving.turns import Flow, TurnQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def queue(running: int = 10, queued: int = 1000, clock: Clock | None = None) -> TurnQueue:
    return TurnQueue(max_running_tokens=running, max_queued_tokens=queued, clock=clock or Clock())


class Work:
    """Pieces that hold their turn until they are let go; remembers the order in which turns came."""

    def __init__(self, turns: TurnQueue) -> None:
        self.turns = turns
        self.order: list[str] = []
        self._ends: list[asyncio.Event] = []
        self._tasks: list[asyncio.Task[None]] = []

    def want(self, flow: Flow, num_tokens: int, name: str | None = None) -> asyncio.Task[None]:
        async def piece() -> None:
            async with self.turns.turn(flow, num_tokens):
                self.order.append(name or flow.call)
                end = asyncio.Event()
                self._ends.append(end)
                await end.wait()

        self._tasks.append(asyncio.create_task(piece()))
        return self._tasks[-1]

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def end_all(self) -> None:
        """One after the other, so that the next turn is given each time."""
        await self.settle()
        ended = 0
        while ended < len(self._ends):
            self._ends[ended].set()
            ended += 1
            await self.settle()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        assert all(r is None or isinstance(r, asyncio.CancelledError) for r in results)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def test_a_small_call_waits_for_its_share_and_not_for_a_large_one() -> None:
    async def test() -> None:
        work = Work(queue(running=10))
        for _ in range(100):
            work.want(Flow("large", "large"), 10)
        await work.settle()
        work.want(Flow("small", "small"), 10)
        await work.end_all()
        assert work.order.index("small") <= 2

    run(test)


def test_a_callers_own_calls_take_turns_too() -> None:
    async def test() -> None:
        work = Work(queue(running=10))
        for _ in range(50):
            work.want(Flow("me", "batch"), 10)
        await work.settle()
        work.want(Flow("me", "query"), 10)
        await work.end_all()
        assert work.order.index("query") <= 2

    run(test)


def test_a_caller_with_many_calls_gets_no_more_than_one_with_few() -> None:
    async def test() -> None:
        work = Work(queue(running=10))
        for call in range(40):
            work.want(Flow("many", f"many-{call}"), 10, "many")
        for _ in range(10):
            work.want(Flow("few", "one"), 10, "few")
        await work.end_all()
        assert Counter(work.order[:20])["few"] in {9, 10}

    run(test)


def test_shares_are_of_tokens_and_not_of_pieces() -> None:
    async def test() -> None:
        work = Work(queue(running=10))
        for _ in range(20):
            work.want(Flow("long", "long"), 10)
        for _ in range(20):
            work.want(Flow("short", "short"), 2)
        await work.end_all()
        first = Counter(work.order[:12])
        assert first["short"] * 2 == pytest.approx(first["long"] * 10, abs=12)

    run(test)


def test_idle_time_is_not_saved_up() -> None:
    async def test() -> None:
        work = Work(queue(running=10))
        work.want(Flow("late", "early"), 10)
        for _ in range(30):
            work.want(Flow("busy", "busy"), 10)
        for _ in range(10):
            await work.settle()
            work._ends[len(work.order) - 1].set()
        await work.settle()
        before = len(work.order)
        for _ in range(20):
            work.want(Flow("late", "late"), 10)
        await work.end_all()
        assert Counter(work.order[before : before + 10])["late"] in {4, 5, 6}

    run(test)


def test_small_pieces_do_not_pass_a_large_one_for_ever() -> None:
    async def test() -> None:
        work = Work(queue(running=10))
        work.want(Flow("a", "a"), 6)
        await work.settle()
        work.want(Flow("b", "large"), 10)
        await work.settle()
        for _ in range(10):
            work.want(Flow("c", "small"), 2)
        await work.end_all()
        assert work.order.index("large") <= 2

    run(test)


def test_a_piece_larger_than_the_engine_runs_alone() -> None:
    async def test() -> None:
        turns = queue(running=10)
        work = Work(turns)
        work.want(Flow("a", "huge"), 99)
        await work.settle()
        assert (work.order, turns.running_tokens) == (["huge"], 99)
        work.want(Flow("b", "next"), 1)
        await work.settle()
        assert work.order == ["huge"]
        await work.end_all()
        assert work.order == ["huge", "next"]

    run(test)


def test_a_cancelled_piece_takes_no_turn_and_a_cancelled_turn_is_given_on() -> None:
    async def test() -> None:
        turns = queue(running=10)
        work = Work(turns)
        running = work.want(Flow("a", "running"), 10)
        waiting = work.want(Flow("a", "waiting"), 10)
        work.want(Flow("b", "other"), 10)
        await work.settle()
        waiting.cancel()
        running.cancel()
        await work.settle()
        assert work.order == ["running", "other"]
        await work.end_all()
        assert turns.running_tokens == 0

    run(test)


def test_cancelling_in_the_moment_of_the_turn_loses_no_tokens() -> None:
    async def test() -> None:
        turns = queue(running=10)
        async with turns.turn(Flow("a", "a"), 10):
            task = asyncio.create_task(turns.turn(Flow("b", "b"), 10).__aenter__())
            await asyncio.sleep(0)
        task.cancel()  # its turn has come, but it has not run on yet
        assert turns.running_tokens == 10
        with pytest.raises(asyncio.CancelledError):
            await task
        assert turns.running_tokens == 0

    run(test)


def test_nothing_is_remembered_of_calls_that_have_ended() -> None:
    async def test() -> None:
        turns = queue(running=10)
        for call in range(100):
            async with turns.turn(Flow(f"caller-{call % 7}", str(call)), 5):
                pass
        async with turns.turn(Flow("last", "last"), 5):
            pass
        assert all(not caller.calls for caller in turns._callers.values())
        assert len(turns._callers) <= 8

    run(test)


def test_past_the_bound_a_call_is_refused_at_once_and_takes_nothing() -> None:
    turns = queue(queued=100)
    with turns.place(60):
        with pytest.raises(QueueFullError, match="60 tokens are waiting already"):
            turns.place(41).__enter__()
        with turns.place(40):
            assert (turns.queued_tokens, turns.is_full) == (100, True)
        assert turns.queued_tokens == 60
    assert turns.queued_tokens == 0


def test_a_call_larger_than_the_queue_is_let_in_when_nothing_waits() -> None:
    turns = queue(queued=100)
    with turns.place(500):
        assert turns.is_full
        with pytest.raises(QueueFullError):
            turns.place(1).__enter__()


async def saturate(turns: TurnQueue, clock: Clock, *, num_tokens: int, seconds_each: float) -> None:
    """Pieces that wait for each other."""

    async def piece(call: str) -> None:
        async with turns.turn(Flow("a", call), num_tokens):
            await asyncio.sleep(0)
            clock.now += seconds_each

    await asyncio.gather(*(piece(str(call)) for call in range(60)))


def test_when_to_try_again_follows_from_the_speed_seen() -> None:
    async def test() -> None:
        clock = Clock()
        turns = queue(running=100, queued=1000, clock=clock)
        await saturate(turns, clock, num_tokens=100, seconds_each=1)  # 100 tokens a second
        with turns.place(1000):
            retry_after_s = turns.full().retry_after_s
        assert retry_after_s == pytest.approx(5, rel=0.1)  # until half of the queue has left

    run(test)


def test_what_would_wait_longer_than_the_bound_is_refused() -> None:
    async def test() -> None:
        clock = Clock()
        turns = TurnQueue(
            max_running_tokens=100, max_queued_tokens=10**6, max_queue_s=20, clock=clock
        )
        await saturate(turns, clock, num_tokens=100, seconds_each=1)  # 100 tokens a second
        with turns.place(5000):  # nothing else waits
            assert turns.is_full
        with turns.place(1000):
            assert not turns.is_full
            with pytest.raises(QueueFullError):
                turns.place(1500).__enter__()
            with turns.place(500):
                pass

    run(test)


def test_a_trickle_says_nothing_of_how_fast_the_engine_is() -> None:
    async def test() -> None:
        clock = Clock()
        turns = TurnQueue(
            max_running_tokens=100, max_queued_tokens=10**6, max_queue_s=20, clock=clock
        )
        for _ in range(100):  # one token a minute
            async with turns.turn(Flow("a", "a"), 1):
                clock.now += 1
            clock.now += 59
        with turns.place(1), turns.place(10**5):
            assert not turns.is_full

    run(test)


def test_without_any_speed_seen_the_wait_is_short() -> None:
    turns = queue(queued=10)
    with turns.place(10):
        assert 1 <= turns.full().retry_after_s <= 5


def test_a_call_is_cut_into_pieces_of_tokens_and_of_prompts_and_none_is_lost() -> None:
    turns = TurnQueue(
        max_running_tokens=100, max_queued_tokens=100, max_piece_tokens=10, max_piece_prompts=3
    )
    sizes = [4, 4, 4, 1, 1, 1, 1, 30, 1, 9, 1]
    pieces = [sizes[piece] for piece in turns.pieces(sizes)]
    assert pieces == [[4, 4], [4, 1, 1], [1, 1], [30], [1, 9], [1]]
    assert turns.pieces([]) == []
