"""An engine without a model that sees colours: a patch of one is the same as the word for it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from serving.engine.fake import FakeEngine, fake_token_embeddings
from serving.engine.protocol import ImagePrompt, Pooled, Prompt, Want
from serving.images import decode_image, patch_grid
from serving.settings import EngineSettings

COLOURS = {"o": (240, 130, 20), "c": (20, 190, 210), "b": (40, 60, 210)}
"""Orange, cyan and blue by words of one token, whose rows by the fake engine's formula are far apart."""

_GREYS = 16
_FIRST_GREY_ID = 60


class SeeingEngine(FakeEngine):
    """A patch has the id of its colour's word, or of its grey."""

    def __init__(self, directory: Path, settings: EngineSettings | None = None) -> None:
        super().__init__(directory, settings)
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        # As they stand in a query: after a space.
        self._ids = {word: tokenizer.encode(f": {word}").ids[-1] for word in COLOURS}

    def _pool(self, prompt: Prompt, token_ids: Sequence[int], want: Want) -> Pooled:
        seen = list(token_ids)
        if isinstance(prompt, ImagePrompt):
            start = seen.index(self.manifest.special_token_ids.image_pad)
            ids = self._seen(decode_image(prompt.source, self._limits), prompt.max_pixels)
            seen[start : start + len(ids)] = ids
        embeddings = fake_token_embeddings(seen, self.manifest.hidden_size)
        return self._pooler.pool(prompt, token_ids, embeddings, want)

    def _seen(self, image: Image.Image, max_pixels: int) -> list[int]:
        grid = patch_grid(image.width, image.height, max_pixels, self.manifest.image)
        means = np.asarray(image.resize((grid.columns, grid.rows), Image.Resampling.BOX), float)
        return [self._id(mean) for mean in means.reshape(-1, 3)]

    def _id(self, mean: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> int:
        for word, colour in COLOURS.items():
            if np.abs(mean - colour).max() < 40:
                return self._ids[word]
        return _FIRST_GREY_ID + int(mean.mean() / 256 * _GREYS)
