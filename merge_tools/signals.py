"""Signals at points of our choosing: what waits for threads or cleans up is not cut anywhere.

Python runs a signal's handler between any two instructions of the main thread. An exception out of
it, be it KeyboardInterrupt, can fall between the taking of a lock and its `with` block: inside
`concurrent.futures` that leaves a lock taken for ever, and the pool's end waits for ever.
Deliberately keeps out what Python does not handle: SIGKILL, and SIGTERM where nobody asked for it.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import cast

__all__ = ["held_signals", "let_signals_through"]

_Handler = Callable[[int, FrameType | None], object]


class _Held:
    """Signals that came, in order, and who would have handled them."""

    def __init__(self, terminated: Callable[[], Exception] | None) -> None:
        self._terminated = terminated
        self._handlers: dict[int, _Handler | signal.Handlers] = {}
        self._came: list[int] = []
        self._has_raised = False

    def take_over(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            ends_process = number == signal.SIGTERM and handler is signal.SIG_DFL
            if callable(handler) or (ends_process and self._terminated is not None):
                # Noted before it is replaced: what comes between the two goes to the old one.
                self._handlers[number] = cast("_Handler | signal.Handlers", handler)
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if not self._has_raised:
            self._came.append(number)

    def let_through(self) -> None:
        while self._came:
            number = self._came.pop(0)
            handler = self._handlers[number]
            # Unless the handler returns: only notes, as this one does.
            self._has_raised = True
            if callable(handler):
                handler(number, None)
            elif self._terminated is not None:
                raise self._terminated()
            self._has_raised = False

    def give_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for number in self._came:
            signal.raise_signal(number)


_held: _Held | None = None


@contextmanager
def held_signals(*, terminated: Callable[[], Exception] | None = None) -> Iterator[None]:
    """Keeps SIGINT and SIGTERM from raising in the block but where `let_signals_through` is called.

    Those that come after one has raised are dropped: once is enough, and clearing up is not cut.
    Those that nobody let through go to whoever listened before, after the block. Blocks may be
    nested; the outermost holds. Outside the main thread nothing is done: no signal arrives there.

    Args:
        terminated: gives the exception for SIGTERM where that would end the process; None leaves
            SIGTERM as it is.
    """
    global _held
    if _held is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _held = _Held(terminated)
    try:
        _held.take_over()
        yield
    finally:
        held, _held = _held, None
        held.give_back()


def let_signals_through() -> None:
    """A point at which signals held until now may raise; nothing where none are held."""
    if _held is not None and threading.current_thread() is threading.main_thread():
        _held.let_through()
