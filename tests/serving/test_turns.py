import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from serving.admission import Admission
from serving.turns import Flow, TurnQueue


def queue(running: int = 10) -> TurnQueue:
    return TurnQueue(max_running_tokens=running, admission=Admission(max_tokens=1000))


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
        assert not turns._callers

    run(test)


def test_a_call_is_cut_into_pieces_of_tokens_and_of_prompts_and_none_is_lost() -> None:
    turns = TurnQueue(
        max_running_tokens=100,
        admission=Admission(max_tokens=100),
        max_piece_tokens=10,
        max_piece_prompts=3,
    )
    sizes = [4, 4, 4, 1, 1, 1, 1, 30, 1, 9, 1]
    pieces = [sizes[piece] for piece in turns.pieces(sizes)]
    assert pieces == [[4, 4], [4, 1, 1], [1, 1], [30], [1, 9], [1]]
    assert turns.pieces([]) == []
