"""Stage one: the vision tower learns to read.

Every image token says which word, number or coloured shape it lies on: dense supervision, hundreds of answers a
step, before anything is asked of the language model. The head that answers is thrown away afterwards.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Qwen2_5_VLForConditionalGeneration as Model

from mini.documents.cells import NOTHING, NUM_CLASSES, cell_classes
from mini.documents.strips import SIDE, strip
from mini.model import shapes
from mini.model.pixels import patches_of, pixels_of
from mini.training.log import Log
from mini.training.optimising import Optimiser
from mini.training.replay import batches
from mini.training.vision import see

_SEEN = SIDE // 2
_CELLS = _SEEN // shapes.CELL
_WEIGHT_OF_NOTHING = 0.3


@dataclass(frozen=True, slots=True)
class Strips:
    """pixels: uint8 [strip, channel, row, column]; classes: int64 [strip, image token]."""

    pixels: Tensor
    classes: Tensor


@dataclass(frozen=True, slots=True)
class DrawStrips:
    """Draws `count` strips."""

    count: int

    def __call__(self, rng: random.Random) -> Strips:
        """The next strips."""
        strips = [strip(rng) for _ in range(self.count)]
        classes = [torch.from_numpy(cell_classes(one.words, SIDE, SIDE)) for one in strips]
        return Strips(
            pixels_of([one.image for one in strips], _SEEN), torch.stack(classes).flatten(1)
        )


def reading_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross entropy over image tokens; paper counts less, since it is easy and there is much of it."""
    weight = torch.ones(NUM_CLASSES)
    weight[NOTHING] = _WEIGHT_OF_NOTHING
    return cross_entropy(logits.float().flatten(0, 1), classes.flatten(), weight=weight)


def learn_to_read(
    model: Model, head: nn.Linear, *, steps: int, batch: int, seed: int, log: Log, keep: Path
) -> None:
    """Train the vision tower of `model` and `head` on strips, in place.

    Args:
        model: its vision tower is trained.
        head: hidden size of the text -> classes of a cell.
        steps: of the optimiser.
        batch: strips a step.
        seed: of the strips.
        log: where loss and accuracy go, every hundred steps.
        keep: file that the weights are written to every five hundred steps.
    """
    tower = model.model.visual
    seen = torch.compile(see)
    # The rate stays up to the end: the tower goes on learning in the next stage.
    optimiser = Optimiser([*tower.parameters(), *head.parameters()], rate=1e-3, steps=steps, fall=0)
    stream = batches(DrawStrips(batch), seed=seed, keep=150, reuse=3)
    for step, strips in zip(range(1, steps + 1), stream, strict=False):
        with torch.autocast("cpu", torch.bfloat16):
            logits = head(seen(tower, patches_of(strips.pixels), _CELLS, _CELLS))
        loss = reading_loss(logits, strips.classes)
        if step % 100 == 0:
            words = strips.classes != NOTHING
            right = (logits.argmax(-1) == strips.classes)[words].float().mean()
            log.write(step, loss=loss.item(), words_read=right.item())
        optimiser.step(loss)
        if step % 500 == 0 or step == steps:
            torch.save({"tower": tower.state_dict(), "head": head.state_dict()}, keep)
