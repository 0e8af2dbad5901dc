"""Texts of an exact number of tokens, and pages of exactly the size a checkpoint computes, from a seed.

Knows a checkpoint's tokenizer and image settings as files; not what is done with what it makes.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from benchmarks.checkpoint import page_pixels
from benchmarks.workloads import pages

_LETTERS = list("abcdefghijklmnopqrstuvwxyz")
_PREFIX = "Query:"
_MAX_WORDS = 2000


class TextMaker:
    """Makes texts that are `Query: ` and words, and have as many tokens as asked for, prefix included."""

    def __init__(self, checkpoint: Path, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._made: set[str] = set()
        tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        lengths = self._rng.integers(1, 9, _MAX_WORDS)
        words = {"".join(self._rng.choice(_LETTERS, size=int(n))) for n in lengths}
        words |= set(_LETTERS)
        # A byte-level tokenizer splits at spaces first, so a text's tokens are the sum over its words.
        self._words = np.array(sorted(words))
        encoded = tokenizer.encode_batch(
            [f" {word}" for word in self._words], add_special_tokens=False
        )
        self._counts = np.array([len(item.ids) for item in encoded])
        self._prefix_tokens = len(tokenizer.encode(_PREFIX, add_special_tokens=False).ids)
        self._by_count = {
            int(count): self._words[self._counts == count] for count in set(self._counts)
        }

    def texts(self, num_texts: int, num_tokens: int) -> list[str]:
        """Texts without the prefix they are counted with; this maker makes none twice."""
        made: list[str] = []
        while len(made) < num_texts:
            text = self._text(num_tokens - self._prefix_tokens)
            if text not in self._made:
                self._made.add(text)
                made.append(text)
        return made

    def _text(self, num_tokens: int) -> str:
        if num_tokens < 1:
            raise ValueError(f"A text has at least {self._prefix_tokens + 1} tokens.")
        while True:
            drawn = self._rng.integers(0, len(self._words), num_tokens)
            ends = np.cumsum(self._counts[drawn])
            fits = int(np.searchsorted(ends, num_tokens, side="right"))
            left = num_tokens - (int(ends[fits - 1]) if fits else 0)
            words = list(self._words[drawn[:fits]])
            if left:
                if left not in self._by_count:
                    continue
                filler = self._by_count[left]
                words.append(filler[self._rng.integers(len(filler))])
            return " ".join(words)


def page_pngs(checkpoint: Path, num_pages: int, seed: int = 0) -> list[bytes]:
    """Pages as PNG files, of the size to which `checkpoint` reduces a page."""
    made = []
    height, width = page_pixels(checkpoint)
    for page in pages(num_pages, seed):
        buffer = io.BytesIO()
        page.resize((width, height), Image.Resampling.BICUBIC).save(buffer, format="PNG")
        made.append(buffer.getvalue())
    return made
