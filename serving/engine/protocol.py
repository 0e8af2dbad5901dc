"""The seam between serving and whatever computes: prompts in, pooled vectors out.

HTTP, batch jobs and the Python API are written against `Engine`. Vectors, not hidden states, cross it,
so that it holds whether pooling happens here, in the engine's worker or on another machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from pooling import Span
from serving.errors import InputError
from serving.inputs import ImageSource


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """A tokenised text, prefix included.

    Attributes:
        token_ids: all of it.
        spans: late chunking: single vectors of these spans instead of one of the whole; at least one.
    """

    token_ids: tuple[int, ...]
    spans: tuple[Span, ...] | None = None


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """An image in its template.

    Attributes:
        token_ids: the template; it holds the image placeholder once.
        source: the image; the engine decodes it, so that few are in memory at a time.
        min_pixels: the image is enlarged to at least this area.
        max_pixels: the image is reduced to at most this area.
    """

    token_ids: tuple[int, ...]
    source: ImageSource
    min_pixels: int
    max_pixels: int

    def expanded(self, image_pad: int, num_image_tokens: int) -> list[int]:
        """The template with `image_pad`, which it holds once, for each image token."""
        at = self.token_ids.index(image_pad)
        return [*self.token_ids[:at], *[image_pad] * num_image_tokens, *self.token_ids[at + 1 :]]


Prompt = TextPrompt | ImagePrompt


@dataclass(frozen=True, slots=True)
class Want:
    """Which vectors to compute; both cost one forward pass.

    Attributes:
        single: one vector for the prompt, or for each of its spans.
        multi: one vector for each token.
        normalized: scaled to unit length; False leaves the mean, or the projection, as it is.
        dim: single vectors are cut to this, and scaled again where they are normalized; None keeps
            all.
    """

    single: bool = False
    multi: bool = False
    normalized: bool = True
    dim: int | None = None


@dataclass(frozen=True, slots=True)
class Pooled:
    """What one prompt became.

    Attributes:
        token_ids: the prompt as the model saw it, image placeholders expanded.
        single: float32 [dim], or [span, dim] for a prompt with spans; None unless asked for.
        multi: float32 [token, dim]; None unless asked for.
    """

    token_ids: tuple[int, ...]
    single: Tensor | None
    multi: Tensor | None


Outcome = Pooled | InputError
"""A prompt's vectors, or why this prompt alone has none."""


@runtime_checkable
class CountsAnswers(Protocol):
    """What an `Engine` may also be: one that says how far it has come within its calls."""

    @property
    def num_answered(self) -> int:
        """Prompts that it has computed so far."""
        ...


class Engine(Protocol):
    """Computes vectors for one task."""

    @property
    def max_tokens(self) -> int:
        """Longest prompt the engine takes, in tokens."""
        ...

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        """Embed `prompts`; outcomes in the same order, a bad prompt fails alone.

        Raises:
            EngineError: the engine itself cannot answer.
        """
        ...

    async def check_health(self) -> None:
        """Return if the engine can answer.

        Raises:
            EngineError: it cannot.
        """
        ...

    async def close(self) -> None:
        """Stop the engine and every process it started; a second call does nothing."""
        ...
