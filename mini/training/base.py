"""Stage two: the base reads pages out, writes texts of its own, and brings pages and queries together.

Captioning is the dense supervision; the contrast of queries with pages is what makes vectors of it, and stays
light here: being good at retrieval is the adapter's part.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration as Model

from mini.documents.cells import NOTHING, cell_classes
from mini.documents.kinds import draw_page
from mini.documents.page import HEIGHT, WIDTH
from mini.model import shapes
from mini.model.pixels import patches_of, pixels_of
from mini.texts.functions import function
from mini.texts.paraphrases import sentence, statement
from mini.training.language import caption_loss, read_pages, read_texts, text_loss
from mini.training.log import Log
from mini.training.losses import SINGLE_TEMPERATURE, info_nce
from mini.training.optimising import Optimiser
from mini.training.reading import reading_loss
from mini.training.replay import batches
from mini.training.sequences import Encoder, ImageFrame, Texts
from mini.training.vision import see

SEEN = WIDTH // 2
CELLS = SEEN // shapes.CELL
QUERY_TOKENS, CAPTION_TOKENS, TEXT_TOKENS = 20, 32, 64
_CONTRAST, _READING, _WRITING = 0.5, 0.3, 0.3
"""Weights of the losses beside that of captions."""


@dataclass(frozen=True, slots=True)
class Pages:
    """A batch of pages, each with a query, its transcript, and another text.

    `facts` and `asked` are bits of a hashed set: a page may answer a query if it has every bit asked.
    """

    pixels: Tensor
    classes: Tensor
    query_ids: Tensor
    query_mask: Tensor
    caption_ids: Tensor
    caption_mask: Tensor
    text_ids: Tensor
    text_mask: Tensor
    facts: Tensor
    asked: Tensor

    @property
    def queries(self) -> Texts:
        """What asks for the pages."""
        return Texts(self.query_ids, self.query_mask)

    @property
    def captions(self) -> Texts:
        """What stands on them."""
        return Texts(self.caption_ids, self.caption_mask)

    @property
    def texts(self) -> Texts:
        """Passages, statements and code, to learn to write."""
        return Texts(self.text_ids, self.text_mask)

    def allowed(self) -> Tensor:
        """Bool [query, page]: the diagonal, and every page that does not answer the query."""
        answers = (self.asked[:, None] & ~self.facts[None, :]).eq(0).all(dim=-1)
        return ~answers | torch.eye(len(self.facts), dtype=torch.bool)


def _bits(facts: frozenset[str]) -> Tensor:
    bits = torch.zeros(1024, dtype=torch.bool)
    for fact in facts:
        # Python's own hash differs from process to process.
        bits[random.Random(fact).randrange(1024)] = True
    return bits


@dataclass(frozen=True, slots=True)
class DrawPages:
    """Draws `count` pages with what is learned from them."""

    count: int
    encoder: Encoder

    def __call__(self, rng: random.Random) -> Pages:
        """The next pages."""
        pages = [draw_page(rng) for _ in range(self.count)]
        asked = [rng.choice(page.queries) for page in pages]
        classes = [
            torch.from_numpy(cell_classes((*page.shapes, *page.words), WIDTH, HEIGHT))
            for page in pages
        ]
        queries = self.encoder.texts([f"Query: {one.text}" for one in asked], limit=QUERY_TOKENS)
        captions = self.encoder.texts(
            [page.transcript for page in pages], limit=CAPTION_TOKENS, end=True
        )
        texts = self.encoder.texts(
            [_text(rng, page.passage) for page in pages], limit=TEXT_TOKENS, end=True
        )
        return Pages(
            pixels_of([page.image for page in pages], SEEN),
            torch.stack(classes).flatten(1),
            queries.ids,
            queries.mask,
            captions.ids,
            captions.mask,
            texts.ids,
            texts.mask,
            torch.stack([_bits(page.facts) for page in pages]),
            torch.stack([_bits(one.facts) for one in asked]),
        )


def _text(rng: random.Random, passage: str) -> str:
    match rng.randrange(3):
        case 0:
            return f"Passage: {passage}"
        case 1:
            return f"Query: {sentence(rng, statement(rng))}"
        case _:
            code = function(rng)
            return f"Passage: {code.docstring}\n{code.code}"


def train_base(
    model: Model,
    head: nn.Linear,
    encoder: Encoder,
    *,
    steps: int,
    batch: int,
    seed: int,
    log: Log,
    keep: Path,
) -> None:
    """Train all of `model`, in place; `head` reads image tokens as in stage one.

    Args:
        model: whose vision tower can read already.
        head: hidden size of the text -> classes of a cell.
        encoder: the tokenizer.
        steps: of the optimiser.
        batch: pages a step.
        seed: of the pages.
        log: where figures go, every fifty steps.
        keep: file that the weights are written to every two hundred steps.
    """
    frame = ImageFrame.of(encoder, CELLS, CELLS)
    seen_by = torch.compile(see)
    optimiser = Optimiser([*model.parameters(), *head.parameters()], rate=8e-4, steps=steps)
    stream = batches(DrawPages(batch, encoder), seed=seed, keep=60, reuse=2)
    for step, pages in zip(range(1, steps + 1), stream, strict=False):
        with torch.autocast("cpu", torch.bfloat16):
            seen = seen_by(model.model.visual, patches_of(pages.pixels), CELLS, CELLS)
            logits = head(seen)
            read = read_pages(model, seen, frame, pages.captions)
            asked = read_texts(model, pages.queries)
            written = read_texts(model, pages.texts)
            caption = caption_loss(model, read, frame, pages.captions)
            writing = text_loss(model, written, pages.texts)
        scores = asked.mean() @ read.mean().T
        contrast = info_nce(scores, pages.allowed(), SINGLE_TEMPERATURE)
        reading = reading_loss(logits, pages.classes)
        loss = caption + _CONTRAST * contrast + _READING * reading + _WRITING * writing
        optimiser.step(loss)
        if step % 50 == 0:
            words = pages.classes != NOTHING
            log.write(
                step,
                caption=caption.item(),
                contrast=contrast.item(),
                writing=writing.item(),
                words_read=(logits.argmax(-1) == pages.classes)[words].float().mean().item(),
                found=(scores.argmax(1) == torch.arange(len(scores))).float().mean().item(),
            )
        if step % 200 == 0 or step == steps:
            torch.save({"model": model.state_dict(), "head": head.state_dict()}, keep)
