"""Signals held until a point at which they may raise."""

import os
import signal
from threading import Thread

import pytest

from merge_tools.signals import held_signals, let_signals_through

pytestmark = pytest.mark.usefixtures("default_signals")


class Terminated(Exception):  # noqa: N818
    """What SIGTERM is to become."""


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_an_interrupt_raises_where_it_is_let_through_and_not_before() -> None:
    reached = []

    def block() -> None:
        with held_signals():
            send(signal.SIGINT)
            reached.append("after the signal")
            let_signals_through()
            reached.append("after the point")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert reached == ["after the signal"]


def test_sigterm_becomes_what_was_asked_for() -> None:
    def block() -> None:
        with held_signals(terminated=Terminated):
            send(signal.SIGTERM)
            let_signals_through()

    with pytest.raises(Terminated):
        block()


def test_sigterm_is_left_alone_where_nothing_was_asked_for() -> None:
    with held_signals():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_signals_after_the_one_that_raised_do_not_cut_the_clearing_up() -> None:
    cleared = []

    def block() -> None:
        with held_signals(terminated=Terminated):
            send(signal.SIGINT)
            try:
                let_signals_through()
            finally:
                send(signal.SIGINT)
                send(signal.SIGTERM)
                let_signals_through()
                cleared.append(True)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert cleared


def test_what_nobody_let_through_goes_to_who_listened_before() -> None:
    reached = []

    def block() -> None:
        with held_signals():
            send(signal.SIGINT)
            reached.append(True)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert reached


def test_an_error_in_the_block_does_not_lose_a_signal() -> None:
    def block() -> None:
        with held_signals():
            send(signal.SIGINT)
            raise ValueError("of the block")

    with pytest.raises(KeyboardInterrupt) as caught:
        block()
    assert isinstance(caught.value.__context__, ValueError)


def test_a_handler_that_only_notes_is_called_once_a_signal() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: came.append(number))
    try:
        with held_signals(terminated=Terminated):
            send(signal.SIGTERM)
            assert came == []
            let_signals_through()
            assert came == [signal.SIGTERM]
            send(signal.SIGTERM)
        assert came == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_outermost_block_holds() -> None:
    reached = []

    def block() -> None:
        with held_signals(terminated=Terminated):
            with held_signals():
                send(signal.SIGTERM)
            reached.append("after the inner block")
            let_signals_through()
            reached.append("after the point")

    with pytest.raises(Terminated):
        block()
    assert reached == ["after the inner block"]


def test_nothing_is_done_in_another_thread() -> None:
    seen: list[object] = []

    def block() -> None:
        with held_signals(terminated=Terminated):
            seen.append(signal.getsignal(signal.SIGTERM))
            let_signals_through()

    thread = Thread(target=block)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
