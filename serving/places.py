"""A few places for work beside the engine, such as threads and fetches, taken in fair turns.

The turns are those at an engine (`serving.turns`), with one place in the place of a token. Knows callers;
not what is done in a place.
"""

from contextlib import AbstractAsyncContextManager

from serving.admission import Admission
from serving.turns import Flow, TurnQueue

NOBODY = Flow("", "")
"""Where there is one caller, and the order of arrival will do."""


class Places:
    """Places for one event loop.

    Args:
        number: of them.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._turns = TurnQueue(
            max_running_tokens=number, admission=Admission(max_tokens=number, free_tokens=number)
        )

    def taken(self, flow: Flow) -> AbstractAsyncContextManager[None]:
        """Wait for a place, and hold it until the block is left."""
        return self._turns.turn(flow, 1)

    def all_taken(self) -> AbstractAsyncContextManager[None]:
        """Wait until nobody has a place, letting nobody in meanwhile, and hold them all."""
        return self._turns.turn(Flow("all of them", ""), self._number)
