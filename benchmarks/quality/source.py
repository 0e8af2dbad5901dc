"""Where vectors come from: one protocol over the Python API (`local`) and a running server (`server`).

Knows what is asked for and what is answered; not tasks of mteb, nor what becomes of the vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image
from torch import Tensor

from benchmarks.quality.representation import Vectors

Item = str | Image.Image
"""A text without its prefix, or a decoded page."""


@dataclass(frozen=True, slots=True)
class Model:
    """What vectors are attributed to.

    Attributes:
        name: `publisher/name`, as mteb wants it.
        revision: the source's own revision, where it has one, and the digest of the merged checkpoints.
        adapters: tasks that can be asked for.
        dim: of a single vector.
        dimensions: to which single vectors are cut; None where any from 1 to `dim` will do.
        multi_vector_dim: of a token's vector; None where there are none.
        max_pixels: area to which a page is reduced unless another is asked for.
        max_tokens: of the longest text.
        dtype: arithmetic that was asked for; None where it is the checkpoint's own, or a server's.
    """

    name: str
    revision: str
    adapters: tuple[str, ...]
    dim: int
    dimensions: tuple[int, ...] | None
    multi_vector_dim: int | None
    max_pixels: int
    max_tokens: int
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What to make of a batch.

    Attributes:
        adapter: the merged task.
        prompt: prefix of the texts.
        vectors: single or multi.
        dimensions: kept of single vectors; None is all.
    """

    adapter: str
    prompt: str
    vectors: Vectors
    dimensions: int | None = None


class Source(Protocol):
    """Embeds batches."""

    @property
    def model(self) -> Model:
        """What the vectors are attributed to; known before anything is started."""
        ...

    def start(self, adapters: Sequence[str]) -> None:
        """Make ready for these adapters.

        Raises:
            PolyvecError: it cannot be.
        """
        ...

    def embed(self, items: Sequence[Item], ask: Ask) -> list[Tensor]:
        """One float32 tensor an item, [dim] or [token, dim], at unit length, in order.

        Raises:
            PolyvecError: an item cannot be embedded, or there is no answer.
        """
        ...

    def close(self) -> None:
        """Stop what `start` has started."""
        ...


def model_name(source: str) -> str:
    """`publisher/name` of what was merged; what came without a publisher is "local"."""
    return source if source.count("/") == 1 else f"local/{source.rpartition('/')[2] or 'model'}"


def model_revision(revision: str | None, digest: str) -> str:
    """The source's revision and the digest: other weights, other results, whatever they were merged from."""
    return digest if revision is None else f"{revision}-{digest}"
