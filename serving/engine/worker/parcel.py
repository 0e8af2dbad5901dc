"""Many texts in one message to the scheduler and back: what both ends know of it. Knows no vLLM."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pooling import whole
from serving.engine.recipe import MultiDtype, Recipe

_LENGTHS = "lengths"
_OF, _TO = "/", "-"


@dataclass(frozen=True, slots=True)
class ParcelRecipe:
    """What to do with each text of a parcel.

    Attributes:
        lengths: tokens of each text; the parcel's token ids are theirs, one after the other.
        single: one vector for the whole of each text.
        multi: see `Recipe`.
    """

    lengths: tuple[int, ...]
    single: bool
    multi: MultiDtype | None

    def to_numbers(self) -> dict[str, Any]:
        """As it travels in vLLM's parameters, in place of a `Recipe`."""
        return {_LENGTHS: self.lengths, "single": self.single, "multi": self.multi}

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any]) -> Self | None:
        """Undo `to_numbers`; None for the numbers of a `Recipe`."""
        if _LENGTHS not in numbers:
            return None
        return cls(tuple(numbers[_LENGTHS]), numbers["single"], numbers["multi"])

    def of_text(self, length: int) -> Recipe:
        """The recipe of a text of `length` tokens, but for what vLLM's own parameters say."""
        return Recipe(spans=(whole(length),) if self.single else (), multi=self.multi)


def member(parcel_id: str, index: int) -> str:
    """The id of a parcel's text, as a request of its own."""
    return f"{parcel_id}{_OF}{index}"


def members(parcel_id: str, first: int, last: int) -> str:
    """The id of an output of several neighbours in a parcel, a row for each."""
    return f"{parcel_id}{_OF}{first}{_TO}{last}"


def places(output_id: str) -> tuple[str, range | None]:
    """Which message an output belongs to, and which texts of its parcel; None where it was no parcel."""
    message_id, _, numbers = output_id.partition(_OF)
    if not numbers:
        return message_id, None
    first, _, last = numbers.partition(_TO)
    return message_id, range(int(first), int(last or first) + 1)
