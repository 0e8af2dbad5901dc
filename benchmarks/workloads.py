"""The texts and pages that throughput is measured on, made from a seed."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

PAGE_TEMPLATE = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"
)
"""The prompt of a page, for peers that take a string."""

TEMPLATE_TOKENS = 11
"""Tokens of that prompt beside the image's; 17 in a synthetic vocabulary."""

PAGE_SIZE = (1700, 2200)
"""Width and height of a page, in pixels."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Workload:
    """Many items of one kind.

    Attributes:
        is_page: a rendered page, otherwise a text.
        num_tokens: tokens of each item as a model of the real size sees it, prefix or template included.
        base_items: items at scale 1.
        multi: multi-vectors, otherwise single vectors.
    """

    is_page: bool
    num_tokens: int
    base_items: int
    multi: bool = False

    def num_items(self, scale: float) -> int:
        """Items at this scale, at least 2."""
        return max(2, round(self.base_items * scale))


WORKLOADS = {
    "text-8": Workload(is_page=False, num_tokens=8, base_items=4096),
    "text-64": Workload(is_page=False, num_tokens=64, base_items=4096),
    "text-512": Workload(is_page=False, num_tokens=512, base_items=1024),
    "text-8192": Workload(is_page=False, num_tokens=8192, base_items=64),
    "text-64-multi": Workload(is_page=False, num_tokens=64, base_items=4096, multi=True),
    # 744 image tokens and the template; fewer where a model reduces images to less.
    "page": Workload(is_page=True, num_tokens=755, base_items=256),
    "page-multi": Workload(is_page=True, num_tokens=755, base_items=256, multi=True),
}


def texts(workload: Workload, num_items: int, seed: int = 0) -> list[str]:
    """Random words; each text has at least `num_tokens` tokens in any vocabulary, and is to be cut."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list(_LETTERS), size=int(n))) for n in rng.integers(2, 9, 2000)]
    return [" ".join(rng.choice(words, size=workload.num_tokens)) for _ in range(num_items)]


def pages(num_items: int, seed: int = 0) -> list[Image.Image]:
    """Pages of `PAGE_SIZE`, each with text of its own."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(num_items):
        page = Image.new("RGB", PAGE_SIZE, "white")
        draw = ImageDraw.Draw(page)
        for line in range(60):
            words = "".join(rng.choice(list(_LETTERS + "      "), size=100))
            draw.text((120, 100 + 34 * line), words, fill="black", font_size=26)
        made.append(page)
    return made
