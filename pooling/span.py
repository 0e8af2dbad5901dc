"""Which tokens of a sequence are pooled into one vector.

Works on token ids and counts alone. It does not know what a token means: the ids of the vision
markers come from the caller, who reads them from the checkpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pooling.errors import EmptySpanError, SpanRangeError, VisionMarkerError


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens `start..stop-1` of a sequence, at least one.

    Raises:
        SpanRangeError: `start` is negative.
        EmptySpanError: `stop` is not greater than `start`.
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.start < 0:
            raise SpanRangeError(
                f"A span starts at token 0 or later, got start={self.start}. "
                "Count tokens from the head of the sequence."
            )
        if self.stop <= self.start:
            raise EmptySpanError(
                f"A span holds at least one token, got start={self.start}, stop={self.stop}. "
                "Zero tokens have no mean: drop the input or give it a token."
            )

    @property
    def num_tokens(self) -> int:
        """How many tokens the span holds."""
        return self.stop - self.start


def whole(num_tokens: int) -> Span:
    """The span of a text: every token, prefix included."""
    return Span(0, num_tokens)


def vision_span(
    token_ids: Sequence[int], *, vision_start_id: int, vision_end_id: int
) -> Span | None:
    """The span of an image: `vision_start` to `vision_end`, both included, template excluded.

    None when no `vision_start` is present: such a sequence is a text, also when a stray
    `vision_end` stands in it, as the model's original code decides by `vision_start` alone.

    Raises:
        VisionMarkerError: more than one `vision_start`, not exactly one `vision_end` to match it,
            or the end before the start.
    """
    num_starts, num_ends = token_ids.count(vision_start_id), token_ids.count(vision_end_id)
    if num_starts == 0:
        return None
    if num_starts != 1 or num_ends != 1:
        raise VisionMarkerError(
            f"One sequence holds at most one image, got {num_starts} vision_start "
            f"(id {vision_start_id}) and {num_ends} vision_end (id {vision_end_id}), expected one "
            "of each. Send each image in a prompt of its own and encode special tokens in user "
            "text as plain text."
        )
    start, end = token_ids.index(vision_start_id), token_ids.index(vision_end_id)
    if end < start:
        raise VisionMarkerError(
            f"vision_end closes what vision_start opened, got vision_end at token {end} before "
            f"vision_start at token {start}. Check the image template."
        )
    return Span(start, end + 1)
