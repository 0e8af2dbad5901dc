"""Many texts in one message to the scheduler and back: what both ends know of it. Knows no vLLM."""

from collections.abc import Mapping, Sequence
from typing import Any

from pooling import whole
from serving.engine.recipe import MultiDtype, Recipe

_LENGTHS = "lengths"
_OF, _TO = "/", "-"


def parcel_numbers(
    lengths: Sequence[int], *, single: bool, multi: MultiDtype | None
) -> dict[str, Any]:
    """What travels in place of a recipe.

    Args:
        lengths: tokens of each text; the parcel's token ids are theirs, one after the other.
        single: one vector for the whole of each text.
        multi: see `Recipe`.
    """
    return {_LENGTHS: tuple(lengths), "single": single, "multi": multi}


def lengths_of(numbers: Mapping[str, Any]) -> Sequence[int] | None:
    """Tokens of each text; None for what is a recipe and no parcel."""
    lengths: Sequence[int] | None = numbers.get(_LENGTHS)
    return lengths


def text_numbers(numbers: Mapping[str, Any], length: int) -> dict[str, Any]:
    """The recipe of a parcel's text of `length` tokens, as it travels for a text alone."""
    spans = (whole(length),) if numbers["single"] else ()
    return Recipe(spans=spans, multi=numbers["multi"]).to_numbers()


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
