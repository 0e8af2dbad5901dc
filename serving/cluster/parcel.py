"""What travels between an ingress and a replica: a batch of prompts there, its vectors back.

Arrays and bytes, which Ray sends without copying them into a pickle; every value arrives as it left. Knows
the Engine protocol; no Ray.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, assert_never

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pooling import Span
from serving.engine.protocol import ImagePrompt, Outcome, Pooled, Prompt, TextPrompt, Want
from serving.errors import ForeignInputError, InputError, NoVectorsError
from serving.inputs import ImageSource

Ids = np.ndarray[Any, np.dtype[np.int32]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Values = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class _Image:
    data: Bytes
    min_pixels: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class PromptParcel:
    """Prompts and what is wanted of them.

    Attributes:
        token_ids: of all prompts, one after the other.
        lengths: token ids of each prompt.
        spans: of prompts that have some, by position: starts and stops.
        images: of image prompts, by position.
        want: of all.
        held_tokens: what the sender has waiting or running for the replica it sends this to.
    """

    token_ids: Ids
    lengths: Ids
    spans: dict[int, Ids]
    images: dict[int, _Image]
    want: Want
    held_tokens: int

    @classmethod
    def of(cls, prompts: Sequence[Prompt], want: Want, held_tokens: int) -> "PromptParcel":
        """Pack `prompts`; an image's file is read, an image that is decoded already is encoded as PNG.

        Raises:
            OSError: a file cannot be read.
        """
        spans: dict[int, Ids] = {}
        images: dict[int, _Image] = {}
        for index, prompt in enumerate(prompts):
            match prompt:
                case TextPrompt():
                    if prompt.spans is not None:
                        spans[index] = _ids(
                            end for span in prompt.spans for end in (span.start, span.stop)
                        )
                case ImagePrompt():
                    data = np.frombuffer(_encoded(prompt.source), dtype=np.uint8)
                    images[index] = _Image(data, prompt.min_pixels, prompt.max_pixels)
                case _:
                    assert_never(prompt)
        return cls(
            token_ids=_ids(one for prompt in prompts for one in prompt.token_ids),
            lengths=_ids(len(prompt.token_ids) for prompt in prompts),
            spans=spans,
            images=images,
            want=want,
            held_tokens=held_tokens,
        )

    def prompts(self) -> list[Prompt]:
        """Undo `of`."""
        found: list[Prompt] = []
        for index, ids in enumerate(_split(self.token_ids, self.lengths)):
            token_ids = tuple(ids.tolist())
            image, ends = self.images.get(index), self.spans.get(index)
            if image is not None:
                found.append(
                    ImagePrompt(token_ids, image.data.tobytes(), image.min_pixels, image.max_pixels)
                )
            elif ends is not None:
                pairs = ends.reshape(-1, 2).tolist()
                found.append(TextPrompt(token_ids, tuple(Span(*pair) for pair in pairs)))
            else:
                found.append(TextPrompt(token_ids))
        return found


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An `InputError` in numbers and strings; which kind, is told by the other two."""

    reason: str
    origin: str | None
    is_engines: bool

    @classmethod
    def of(cls, error: InputError) -> "_Refusal":
        origin = error.origin if isinstance(error, ForeignInputError) else None
        return cls(error.reason, origin, isinstance(error, NoVectorsError))

    def error(self) -> InputError:
        if self.is_engines:
            return NoVectorsError(self.reason)
        if self.origin is None:
            return InputError(self.reason)
        return ForeignInputError(self.reason, origin=self.origin)


@dataclass(frozen=True, slots=True)
class VectorParcel:
    """Outcomes of a batch.

    Attributes:
        token_ids: of all prompts that have vectors.
        lengths: token ids of each.
        single: float32 [row, dim] of all; None unless wanted.
        rows: rows of `single` of each prompt; -1 for a vector that is not one of spans.
        multi: [token, dim] of all; float16 where that holds the very same values, else float32.
        refusals: of prompts without vectors, by position.
        replica: who computed them.
        held_tokens: what that replica has running now, of all senders.
    """

    token_ids: Ids
    lengths: Ids
    single: Values | None
    rows: Ids
    multi: Values | None
    refusals: dict[int, _Refusal]
    replica: str
    held_tokens: int

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], *, replica: str, held_tokens: int) -> "VectorParcel":
        """Pack `outcomes`."""
        pooled = [one for one in outcomes if isinstance(one, Pooled)]
        singles = [one.single for one in pooled if one.single is not None]
        multis = [one.multi for one in pooled if one.multi is not None]
        return cls(
            token_ids=_ids(token for one in pooled for token in one.token_ids),
            lengths=_ids(len(one.token_ids) for one in pooled),
            single=torch.cat([one.view(-1, one.shape[-1]) for one in singles]).numpy()
            if singles
            else None,
            rows=_ids(-1 if one.ndim == 1 else len(one) for one in singles),
            multi=_narrowed(torch.cat(multis)) if multis else None,
            refusals={
                index: _Refusal.of(one)
                for index, one in enumerate(outcomes)
                if isinstance(one, InputError)
            },
            replica=replica,
            held_tokens=held_tokens,
        )

    def outcomes(self) -> list[Outcome]:
        """Undo `of`."""
        token_ids = _split(self.token_ids, self.lengths)
        singles: list[Tensor] | list[None] = [None] * len(token_ids)
        multis: list[Tensor] | list[None] = [None] * len(token_ids)
        if self.single is not None:
            parts = torch.split(_tensor(self.single), np.abs(self.rows).tolist())
            singles = [
                part[0] if rows < 0 else part
                for part, rows in zip(parts, self.rows.tolist(), strict=True)
            ]
        if self.multi is not None:
            multis = list(torch.split(_tensor(self.multi).float(), self.lengths.tolist()))
        pooled = (
            Pooled(tuple(ids.tolist()), single, multi)
            for ids, single, multi in zip(token_ids, singles, multis, strict=True)
        )
        num_outcomes = len(token_ids) + len(self.refusals)
        return [
            self.refusals[index].error() if index in self.refusals else next(pooled)
            for index in range(num_outcomes)
        ]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a replica has no answer.

    Attributes:
        kind: `down`, it could not begin; `died`, its engine died over the batch; `late`, the sender's
            deadline passed.
        message: what the engine says.
        replica: whose.
    """

    kind: Literal["down", "died", "late"]
    message: str
    replica: str


def _ids(values: Any) -> Ids:
    return np.fromiter(values, dtype=np.int32)


def _split(values: Ids, lengths: Ids) -> list[Ids]:
    return np.split(values, np.cumsum(lengths)[:-1]) if len(lengths) else []


def _tensor(values: Values) -> Tensor:
    # What Ray received is read-only memory, which torch warns of.
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _narrowed(values: Tensor) -> Values:
    half = values.half()
    return (half if torch.equal(half.float(), values) else values).numpy()


def _encoded(source: ImageSource) -> bytes:
    match source:
        case bytes():
            return source
        case Path():
            return source.read_bytes()
        case Image.Image():
            file = io.BytesIO()
            source.save(file, format="PNG")
            return file.getvalue()
        case _:
            assert_never(source)
