"""What an answer is made of, before its encoding.

It does not know JSON, formats or where vectors come from.
"""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens the model has really run.

    Attributes:
        total_tokens: all of them.
        prompt_tokens: the same, as there is no output; both names are read by clients.
        image_tokens: those of images among them; None where there was no image.
    """

    total_tokens: int
    prompt_tokens: int
    image_tokens: int | None = None

    def by_name(self) -> dict[str, int]:
        """As the answer names them."""
        usage = {"total_tokens": self.total_tokens, "prompt_tokens": self.prompt_tokens}
        if self.image_tokens is not None:
            usage["image_tokens"] = self.image_tokens
        return usage


@dataclass(frozen=True, slots=True)
class Patches:
    """Which vectors of an image's multi-vector stand for parts of the image.

    Attributes:
        start: the first of them; the others follow, row by row.
        rows: of the grid that they make over the whole image.
        columns: of the grid.
    """

    start: int
    rows: int
    columns: int

    def by_name(self) -> dict[str, int]:
        """As the answer names them."""
        return {"start": self.start, "rows": self.rows, "columns": self.columns}


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one input, or of one page of a PDF; on the CPU, finite.

    Attributes:
        index: its place in the answer.
        single: float32 [dim]; None in a multi-vector answer.
        multi: float32 [token, dim]; None in a single-vector answer.
        page: counted from 1, for a page of a PDF.
        tokens: as many as `multi` has rows, where they were asked for.
        patches: where those of an image stand among them.
    """

    index: int
    single: Tensor | None = field(default=None, repr=False)
    multi: Tensor | None = field(default=None, repr=False)
    page: int | None = None
    tokens: list[str] | None = field(default=None, repr=False)
    patches: Patches | None = None


def present(vectors: Tensor | None) -> Tensor:
    """Vectors that the call asked for, so that they are there."""
    assert vectors is not None
    return vectors
