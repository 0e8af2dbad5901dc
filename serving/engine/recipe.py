"""What becomes of one prompt's token embeddings: the same reduction inside the engine's worker and outside.

A recipe is made where the prompt is known and followed where the token embeddings are. Between the two
it travels as plain numbers, and its result as one tensor, because vLLM carries one for a request. Knows
`pooling/`, tensors and prompts; knows no vLLM.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, assert_never

import torch
from torch import Tensor

from pooling import (
    EmptySpanError,
    Projector,
    Span,
    mean_vector,
    multi_vector,
    project,
    require_finite,
    truncate,
    unit,
    vision_span,
    whole,
)
from serving.engine.projector import require_projector
from serving.engine.protocol import ImagePrompt, Pooled, Prompt, TextPrompt, Want
from serving.errors import NoVectorsError, TaskError
from serving.manifest import Manifest, SpecialTokenIds

MultiDtype = Literal["float16", "float32"]

_DTYPES: Mapping[MultiDtype, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}


def check_want(want: Want, manifest: Manifest) -> None:
    """Refuse what a checkpoint cannot give, before anything is computed.

    Raises:
        TaskError: no vectors at all, multi-vectors of a checkpoint without projector, or dimensions that it does
            not have.
    """
    if not (want.single or want.multi):
        raise TaskError("Neither single vectors nor multi-vectors are wanted. Ask for one of them.")
    if want.multi:
        require_projector(manifest)
    if want.dim is not None and not 1 <= want.dim <= manifest.hidden_size:
        raise TaskError(
            f"Vectors have 1 to {manifest.hidden_size} dimensions, not {want.dim}. Ask for one of those."
        )


def multi_type(want: Want, multi: MultiDtype) -> MultiDtype | None:
    """In which type wanted multi-vectors leave the worker, `multi` where that is possible; None for none.

    Projections that are not scaled to unit length may exceed float16 and stay float32.
    """
    if not want.multi:
        return None
    return multi if want.normalized else "float32"


@dataclass(frozen=True, slots=True)
class Reduced:
    """What one prompt's token embeddings became.

    Attributes:
        single: float32 [span, dim]; None unless wanted.
        multi: float32 [token, dim]; None unless wanted.
    """

    single: Tensor | None
    multi: Tensor | None

    def of(self, prompt: Prompt, token_ids: Sequence[int]) -> Pooled:
        """Checked, and in the shape that belongs to `prompt`.

        Raises:
            NonFiniteError: a value is NaN or infinite.
        """
        for vectors in (self.single, self.multi):
            if vectors is not None:
                require_finite(vectors)
        has_spans = isinstance(prompt, TextPrompt) and prompt.spans is not None
        single = self.single if self.single is None or has_spans else self.single[0]
        return Pooled(token_ids=tuple(token_ids), single=single, multi=self.multi)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to reduce float [token, hidden] of one prompt.

    Attributes:
        spans: each becomes a single vector; empty for none.
        multi: one vector for each token as well, in this type when it leaves the worker; None for none.
        normalized: scaled to unit length.
        dim: single vectors are cut to this, and scaled again where they are normalized; None keeps all.
    """

    spans: tuple[Span, ...] = ()
    multi: MultiDtype | None = None
    normalized: bool = True
    dim: int | None = None

    @classmethod
    def of(
        cls,
        prompt: Prompt,
        token_ids: Sequence[int],
        want: Want,
        manifest: Manifest,
        multi: MultiDtype = "float32",
    ) -> Self:
        """What `want` means for `prompt`, whose expanded ids are `token_ids`."""
        return cls(
            spans=_spans(prompt, token_ids, manifest.special_token_ids) if want.single else (),
            multi=multi_type(want, multi),
            normalized=want.normalized,
            dim=want.dim,
        )

    def reduce(self, token_embeddings: Tensor, projector: Projector | None) -> Reduced:
        """Follow the recipe over float [token, hidden].

        Raises:
            PoolingError: a span ends after the last token, or a shape does not fit.
        """
        single = self.singles(self.means(token_embeddings)) if self.spans else None
        multi = None
        if self.multi is not None and projector is not None:
            token_vectors = multi_vector if self.normalized else project
            multi = token_vectors(token_embeddings, projector)
        return Reduced(single, multi)

    def means(self, token_embeddings: Tensor) -> Tensor:
        """The spans' means over float [token, hidden]: float32 [span, hidden].

        Raises:
            PoolingError: no span, one that ends after the last token, or a shape that does not fit.
        """
        if not self.spans:
            raise EmptySpanError("Single vectors are of at least one span, got none.")
        if len(self.spans) == 1:
            return mean_vector(token_embeddings, self.spans[0]).unsqueeze(0)
        return torch.stack([mean_vector(token_embeddings, span) for span in self.spans])

    def singles(self, means: Tensor) -> Tensor:
        """Finished single vectors of float32 [mean, hidden], each by itself, whichever prompts they are of."""
        if self.normalized:
            vectors = unit(means)
            return vectors if self.dim is None else truncate(vectors, self.dim)
        return means if self.dim is None else means[:, : self.dim]

    def to_numbers(self) -> dict[str, Any]:
        """The recipe without what vLLM's own parameters say (`normalized`, `dim`)."""
        numbers = [number for span in self.spans for number in (span.start, span.stop)]
        return {"spans": tuple(numbers), "multi": self.multi}

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any], *, normalized: bool, dim: int | None) -> Self:
        """Undo `to_numbers`."""
        ends = iter(numbers["spans"])
        return cls(
            spans=tuple(Span(start, stop) for start, stop in zip(ends, ends, strict=True)),
            multi=numbers["multi"],
            normalized=normalized,
            dim=dim,
        )

    def pack(self, reduced: Reduced) -> Tensor:
        """One tensor of what was wanted: singles, multi-vectors, or the bytes of both in this order."""
        multi = reduced.multi
        if multi is not None and self.multi is not None:
            multi = multi.to(_DTYPES[self.multi])
        match reduced.single, multi:
            case Tensor() as single, Tensor() as multi:
                return torch.cat([_bytes(single), _bytes(multi)])
            case (Tensor() as one, None) | (None, Tensor() as one):
                return one
            case _:
                raise AssertionError("a recipe without vectors")

    def unpack(self, packed: Tensor, num_tokens: int, multi_dim: int | None) -> Reduced:
        """Undo `pack` for a prompt of `num_tokens`; multi-vectors become float32.

        Raises:
            NoVectorsError: the worker could not follow the recipe, and sent nothing.
        """
        if packed.numel() == 0:
            raise NoVectorsError(
                f"A prompt of {num_tokens} tokens could not be pooled as {self}. "
                "This is a bug in polyvec; load with pooling='external' meanwhile."
            )
        if self.multi is None:
            return Reduced(packed, None)
        if not self.spans:
            return Reduced(None, packed.float())
        assert multi_dim is not None
        dtype = _DTYPES[self.multi]
        num_multi_bytes = num_tokens * multi_dim * dtype.itemsize
        single, multi = packed[:-num_multi_bytes], packed[-num_multi_bytes:]
        return Reduced(
            single.view(torch.float32).view(len(self.spans), -1),
            multi.view(dtype).view(num_tokens, multi_dim).float(),
        )


def _bytes(values: Tensor) -> Tensor:
    return values.contiguous().view(-1).view(torch.uint8)


def _spans(prompt: Prompt, token_ids: Sequence[int], ids: SpecialTokenIds) -> tuple[Span, ...]:
    match prompt:
        case TextPrompt():
            return (whole(len(token_ids)),) if prompt.spans is None else prompt.spans
        case ImagePrompt():
            span = vision_span(
                token_ids, vision_start_id=ids.vision_start, vision_end_id=ids.vision_end
            )
            assert span is not None  # the template was checked when the tokenizer was loaded
            return (span,)
        case _:
            assert_never(prompt)
