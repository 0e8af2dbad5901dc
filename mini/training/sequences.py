"""What the language model is given: the image template around a page, prefixed texts, and their positions.

The templates are those of the model's original code; `merge_tools` writes the same into a merged checkpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mini.model.shapes import token_id

IMAGE_BEFORE = "<|im_start|>user\n<|vision_start|>"
IMAGE_AFTER = "<|vision_end|>Describe the image.<|im_end|>\n"


@dataclass(frozen=True, slots=True)
class Texts:
    """ids, int64 [text, token], padded on the right; mask, bool of the same shape."""

    ids: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class Encoder:
    """Texts to ids."""

    tokenizer: Tokenizer

    @classmethod
    def load(cls, directory: Path) -> "Encoder":
        """The tokenizer of `directory`."""
        return cls(Tokenizer.from_file(str(directory / "tokenizer.json")))

    def ids(self, text: str) -> list[int]:
        """The ids of `text`; special tokens in it are taken as such."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def texts(self, texts: Sequence[str], *, limit: int, end: bool = False) -> Texts:
        """`texts` as one padded block of `limit` tokens.

        Args:
            texts: with their prefixes.
            limit: tokens of the block, so that every batch has one shape.
            end: whether each text ends with the end-of-text token.

        Raises:
            ValueError: a text is longer.
        """
        pad = token_id("<|endoftext|>")
        ids = torch.full((len(texts), limit), pad)
        mask = torch.zeros(len(texts), limit, dtype=torch.bool)
        for row, text in enumerate(texts):
            found = self.ids(text) + ([pad] if end else [])
            if len(found) > limit:
                raise ValueError(f"{text!r} has {len(found)} tokens, expected at most {limit}.")
            ids[row, : len(found)] = torch.tensor(found)
            mask[row, : len(found)] = True
        return Texts(ids, mask)


@dataclass(frozen=True, slots=True)
class ImageFrame:
    """The template around the tokens of an image.

    Attributes:
        before: ids up to and with vision_start.
        after: ids from vision_end on.
        rows: image tokens from top to bottom.
        columns: and from left to right.
    """

    before: Tensor
    after: Tensor
    rows: int
    columns: int

    @classmethod
    def of(cls, encoder: Encoder, rows: int, columns: int) -> "ImageFrame":
        """The frame of an image of `rows` x `columns` tokens."""
        before, after = encoder.ids(IMAGE_BEFORE), encoder.ids(IMAGE_AFTER)
        return cls(torch.tensor(before), torch.tensor(after), rows, columns)

    @property
    def span(self) -> slice:
        """vision_start to vision_end, both inclusive: what a single vector is the mean of."""
        start = len(self.before) - 1
        return slice(start, start + self.rows * self.columns + 2)

    @property
    def length(self) -> int:
        """Tokens of the whole template."""
        return len(self.before) + self.rows * self.columns + len(self.after)

    def positions(self, length: int) -> Tensor:
        """Positions of the template and what follows it, int64 [3, 1, length]: time, row, column.

        Source: M-RoPE of Qwen2-VL (https://arxiv.org/abs/2409.12191, section 2.1): text counts on in all three,
        an image stands at one time and counts its rows and columns, and what follows goes on after the largest.
        """
        before = torch.arange(len(self.before)).expand(3, -1)
        first = len(self.before)
        grid = torch.stack(
            [
                torch.zeros(self.rows, self.columns, dtype=torch.long),
                torch.arange(self.rows)[:, None].expand(-1, self.columns),
                torch.arange(self.columns)[None, :].expand(self.rows, -1),
            ]
        ).flatten(1)
        rest = length - first - grid.shape[1]
        after = torch.arange(rest).expand(3, -1) + first + max(self.rows, self.columns)
        return torch.cat([before, grid + first, after], dim=1)[:, None]
