import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import pytest

from serving import QueueFullError
from serving.admission import Admission
from serving.turns import Flow, TurnQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def test_past_the_bound_a_call_is_refused_at_once_and_takes_nothing() -> None:
    admission = Admission(max_tokens=100)
    with admission.place("a", 60):
        with pytest.raises(QueueFullError, match="60 tokens wait already"):
            admission.place("a", 41).__enter__()
        with admission.place("a", 40):
            assert admission.num_tokens == 100
            assert admission.refusal("a", 6) is not None
        assert admission.num_tokens == 60
    assert admission.num_tokens == 0


def test_a_call_larger_than_the_queue_is_let_in_when_nothing_waits() -> None:
    admission = Admission(max_tokens=100)
    with admission.place("a", 500), pytest.raises(QueueFullError):
        admission.place("a", 6).__enter__()


def test_one_callers_large_call_does_not_keep_the_others_out() -> None:
    admission = Admission(max_tokens=100)
    with admission.place("large", 5000):
        assert admission.refusal("large", 6) is not None
        with admission.place("small", 50):  # half of what may wait, as there are two
            assert admission.refusal("small", 3) is not None
            with admission.place("third", 33):
                assert admission.refusal("third", 2) is not None
    assert admission.num_tokens == 0


def test_one_large_call_does_not_keep_its_callers_small_ones_out() -> None:
    admission = Admission(max_tokens=1000)
    with admission.place("a", 50_000), ExitStack() as small:
        num_small = 0
        while admission.refusal("a", 40) is None:
            small.enter_context(admission.place("a", 40))
            num_small += 1
        assert num_small == 1000 // 40 - 1
        assert admission.refusal("b", 40) is None
    # Also beside others, and while nobody knows yet how small it is.
    with ExitStack() as held:
        for _ in range(100):
            with admission.place("b", 45):
                pass
        held.enter_context(admission.place("a", 900))
        held.enter_context(admission.place("b", 300))
        assert admission.usual_refusal("a") is None
        held.enter_context(admission.expected("a"))
        assert admission.refusal("a", 10) is None
        assert admission.refusal("a", 400) is not None
    # Nor a second large one, nor one of middle size: only what is gone soon.
    with admission.place("a", 50_000):
        assert admission.refusal("a", 51) is not None
        assert admission.refusal("a", 50) is None
    # A queue full of small calls is full.
    with ExitStack() as small:
        for _ in range(25):
            small.enter_context(admission.place("a", 40))
        assert admission.refusal("a", 40) is not None


def test_while_usual_calls_find_no_room_they_are_refused_unread() -> None:
    admission = Admission(max_tokens=1000)
    for _ in range(100):
        with admission.place("a", 40):
            pass
    assert admission.usual_refusal("a") is None
    with ExitStack() as held:
        for _ in range(25):
            held.enter_context(admission.place("a", 39))
        assert admission.refusal("a", 1) is None
        assert admission.usual_refusal("a") is not None
        assert admission.usual_refusal("b") is None  # has its share
    assert admission.usual_refusal("a") is None


def test_calls_that_have_come_count_before_their_size_is_known() -> None:
    admission = Admission(max_tokens=1000)
    for _ in range(100):
        with admission.place("a", 40):
            pass
    with ExitStack() as come:
        num_come = 0
        while admission.usual_refusal("a") is None:
            come.enter_context(admission.expected("a"))
            num_come += 1
        assert 20 <= num_come <= 30  # 1000 tokens are room for 25 calls of 40
        assert admission.num_tokens == 0
        with pytest.raises(QueueFullError, match=r"The queue is full: [0-9]{3,} tokens wait"):
            come.enter_context(admission.expected("a"))
        with admission.expected("b"):  # has its share
            pass
        with admission.place("a", 600):  # who has come is not refused for the others who have
            pass
    assert admission.usual_refusal("a") is None


def test_a_large_call_does_not_make_large_calls_usual() -> None:
    admission = Admission(max_tokens=1000)
    for _ in range(100):
        with admission.place("a", 5000):
            pass
    with admission.place("a", 900):
        assert admission.usual_refusal("a") is None
    with ExitStack() as held:
        for _ in range(24):
            held.enter_context(admission.place("a", 40))
        assert admission.usual_refusal("a") is not None


def test_many_callers_together_are_bounded() -> None:
    admission = Admission(max_tokens=1000)
    places = []
    for number in range(10_000):
        if admission.refusal(f"caller {number}", 10) is None:
            places.append(admission.place(f"caller {number}", 10))
            places[-1].__enter__()
    assert admission.num_tokens == 1000
    for place in places:
        place.__exit__(None, None, None)


async def saturate(
    turns: TurnQueue, clock: Clock, *, num_tokens: int, seconds_each: float, fails: bool = False
) -> None:
    """Pieces that wait for each other."""

    async def piece(call: str) -> None:
        async with turns.turn(Flow("a", call), num_tokens):
            await asyncio.sleep(0)
            clock.now += seconds_each
            if fails:
                raise RuntimeError

    await asyncio.gather(*(piece(str(call)) for call in range(60)), return_exceptions=True)


def slow_engine(clock: Clock, **bounds: float) -> tuple[Admission, TurnQueue]:
    admission = Admission(max_tokens=10**6, clock=clock, **bounds)  # type: ignore[arg-type]
    return admission, TurnQueue(max_running_tokens=100, admission=admission)


def test_when_to_try_again_follows_from_the_speed_seen() -> None:
    async def test() -> None:
        clock = Clock()
        admission, turns = slow_engine(clock, max_wait_s=5)
        await saturate(turns, clock, num_tokens=100, seconds_each=1)  # 100 tokens a second
        with admission.place("a", 1000):
            refusal = admission.refusal("a", 1000)
        assert refusal is not None
        assert refusal.retry_after_s == pytest.approx(5, rel=0.1)  # until half of it has left

    run(test)


def test_without_any_speed_seen_the_wait_is_short() -> None:
    admission = Admission(max_tokens=10)
    with admission.place("a", 10):
        refusal = admission.refusal("a", 10)
    assert refusal is not None
    assert 1 <= refusal.retry_after_s <= 5


def test_what_would_wait_longer_than_the_bound_is_refused() -> None:
    async def test() -> None:
        clock = Clock()
        admission, turns = slow_engine(clock, max_wait_s=20)
        await saturate(turns, clock, num_tokens=100, seconds_each=1)  # 100 tokens a second
        with admission.place("a", 1000):
            assert admission.refusal("a", 1) is None
            assert admission.refusal("a", 1900) is not None
            assert admission.refusal("b", 900) is None  # its share of the time
            assert admission.refusal("b", 1500) is not None

    run(test)


def test_what_the_engine_takes_at_once_is_never_refused_for_its_time() -> None:
    async def test() -> None:
        clock = Clock()
        admission, turns = slow_engine(clock, max_wait_s=1, free_tokens=100)
        await saturate(turns, clock, num_tokens=100, seconds_each=20)
        with admission.place("a", 50):
            assert admission.refusal("a", 50) is None
            assert admission.refusal("a", 51) is not None

    run(test)


def test_speed_that_was_seen_long_ago_is_forgotten() -> None:
    async def test() -> None:
        clock = Clock()
        admission, turns = slow_engine(clock, max_wait_s=1)
        await saturate(turns, clock, num_tokens=100, seconds_each=20)
        with admission.place("a", 50):
            assert admission.refusal("a", 50) is not None
            clock.now += 61
            assert admission.refusal("a", 50) is None

    run(test)


def test_what_failed_says_nothing_of_speed() -> None:
    async def test() -> None:
        clock = Clock()
        admission, turns = slow_engine(clock, max_wait_s=1)
        await saturate(turns, clock, num_tokens=100, seconds_each=1, fails=True)
        assert admission.speed.seconds_for(1) is None

    run(test)


def test_a_trickle_says_nothing_of_how_fast_the_engine_is() -> None:
    async def test() -> None:
        clock = Clock()
        admission, turns = slow_engine(clock, max_wait_s=20)
        for _ in range(100):  # one token a minute
            async with turns.turn(Flow("a", "a"), 1):
                clock.now += 1
            clock.now += 59
        with admission.place("a", 1), admission.place("a", 10**5):
            assert admission.refusal("a", 1) is None

    run(test)
