"""Stage three: one LoRA adapter a task over the frozen base, and the projector of multi-vectors.

The vision tower is frozen, so a pool of pages is seen once and kept. Batches of one kind of page make the
negatives hard. The projector itself is learned with the first task; the others adapt it as the rest of the model.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import Qwen2_5_VLForConditionalGeneration as Model

from mini.documents.kinds import KINDS, draw_page
from mini.documents.page import Page, Query
from mini.model import shapes
from mini.model.pixels import patches_of, pixels_of
from mini.texts.functions import Function, function
from mini.texts.paraphrases import pair
from mini.training.base import CELLS, QUERY_TOKENS, SEEN, TEXT_TOKENS
from mini.training.language import Hidden, read_pages, read_texts
from mini.training.log import Log
from mini.training.losses import (
    MULTI_TEMPERATURE,
    cosent,
    info_nce,
    late_interaction,
    matryoshka_info_nce,
)
from mini.training.optimising import Optimiser
from mini.training.sequences import Encoder, ImageFrame
from mini.training.vision import see

RANK, ALPHA = 16, 16
TARGETS = (
    r"(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$"
    r"|.*(single_vector_projector|multi_vector_projector).*$)"
)
"""Which layers are adapted, in the words of the original's own configuration."""

_PASSAGE_TOKENS = 48
_SENTENCE_TOKENS = 32


def lora_config() -> LoraConfig:
    """Each task's adapter."""
    return LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        bias="none",
        target_modules=TARGETS,
        exclude_modules=".*visual.*",
        task_type="FEATURE_EXTRACTION",
        init_lora_weights="gaussian",
    )


def with_adapters(base: Model, tasks: Sequence[str]) -> PeftModel:
    """`base` with a fresh projector, and an untrained adapter for each task."""
    base.multi_vector_projector = nn.Linear(shapes.HIDDEN, shapes.MULTI_VECTOR_DIM)
    adapted = get_peft_model(base, lora_config(), adapter_name=tasks[0])
    for task in tasks[1:]:
        adapted.add_adapter(task, lora_config())
    return cast(PeftModel, adapted)


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of a page, without its picture: thousands of pictures would be gigabytes."""

    kind: str
    facts: frozenset[str]
    passage: str
    queries: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """Pages that the vision tower has seen.

    Attributes:
        pages: what is said of them.
        tokens: what the tower saw of each, bfloat16 [page, image token, hidden].
    """

    pages: tuple[Said, ...]
    tokens: Tensor


@torch.no_grad()
def look_at(model: Model, pages: Iterable[Page], batch: int = 64) -> Seen:
    """See every page once; the pictures themselves are not kept."""
    said, tokens, coming = [], [], iter(pages)
    while some := list(islice(coming, batch)):
        said += [Said(page.kind, page.facts, page.passage, page.queries) for page in some]
        pixels = pixels_of([page.image for page in some], SEEN)
        with torch.autocast("cpu", torch.bfloat16):
            tokens.append(see(model.model.visual, patches_of(pixels), CELLS, CELLS).bfloat16())
    return Seen(tuple(said), torch.cat(tokens))


@dataclass(frozen=True, slots=True)
class Learner:
    """A model with adapters, and what its forward passes need."""

    adapted: PeftModel
    encoder: Encoder
    frame: ImageFrame

    @property
    def model(self) -> Model:
        """The model inside; its layers carry the active adapter."""
        return cast(Model, self.adapted.base_model.model)

    def texts(self, texts: Sequence[str], prefix: str, limit: int) -> Hidden:
        """Hidden states of prefixed texts."""
        block = self.encoder.texts([f"{prefix}: {text}" for text in texts], limit=limit)
        return read_texts(self.model, block)

    def pages(self, tokens: Tensor) -> Hidden:
        """Hidden states of pages; the mask is the span of single vectors."""
        return read_pages(self.model, tokens.float(), self.frame, None)

    def multi(self, hidden: Hidden) -> Tensor:
        """Multi-vectors, unit length, [example, token, dim]."""
        projector = cast("nn.Module", self.model.multi_vector_projector)
        return normalize(projector(hidden.states).float(), dim=-1)


def contrast(
    learner: Learner, queries: Hidden, documents: Hidden, mask: Tensor, allowed: Tensor
) -> Tensor:
    """Matryoshka InfoNCE of single vectors plus InfoNCE of late interaction; `mask` is of documents."""
    single = matryoshka_info_nce(queries.mean(), documents.mean(), allowed, shapes.MATRYOSHKA_DIMS)
    late = late_interaction(learner.multi(queries), queries.mask, learner.multi(documents), mask)
    return single + info_nce(late, allowed, MULTI_TEMPERATURE)


def train_retrieval(
    learner: Learner, seen: Seen, *, steps: int, batch: int, seed: int, log: Log
) -> None:
    """Queries find pages, and a passage that says what stands on a page; the projector learns too."""
    projector = learner.adapted.get_submodule("base_model.model.multi_vector_projector.base_layer")
    learner.adapted.set_adapter("retrieval")
    projector.requires_grad_(True)
    optimiser = Optimiser(learner.adapted.parameters(), rate=1e-3, steps=steps)
    rng = random.Random(seed)
    for step in range(1, steps + 1):
        chosen = _some_pages(rng, seen, batch)
        pages = [seen.pages[at] for at in chosen]
        asked = [rng.choice(page.queries) for page in pages]
        allowed = torch.tensor(
            [
                [
                    row == column or not query.facts <= page.facts
                    for column, page in enumerate(pages)
                ]
                for row, query in enumerate(asked)
            ]
        )
        with torch.autocast("cpu", torch.bfloat16):
            queries = learner.texts([one.text for one in asked], "Query", QUERY_TOKENS)
            shown = learner.pages(seen.tokens[chosen])
            every = torch.ones(shown.mask.shape, dtype=torch.bool)
            loss = contrast(learner, queries, shown, every, allowed)
            if step % 3 == 0:
                said = learner.texts([page.passage for page in pages], "Passage", _PASSAGE_TOKENS)
                loss = loss + contrast(learner, queries, said, said.mask, allowed)
        optimiser.step(loss)
        if step % 50 == 0:
            found = (queries.mean() @ shown.mean().T).argmax(1) == torch.arange(batch)
            log.write(step, loss=loss.item(), found=found.float().mean().item())
    projector.requires_grad_(False)


def _some_pages(rng: random.Random, seen: Seen, batch: int) -> list[int]:
    """Positions of pages: of one kind half of the time, of any otherwise."""
    if rng.random() < 0.5:
        return rng.sample(range(len(seen.pages)), batch)
    kind = rng.choice(sorted(KINDS))
    return rng.sample([at for at, page in enumerate(seen.pages) if page.kind == kind], batch)


def draw_pool(seed: int, count: int) -> Iterator[Page]:
    """Pages of every kind to learn from, drawn as they are asked for."""
    rng, kinds = random.Random(seed), sorted(KINDS)
    return (draw_page(rng, kinds[at % len(kinds)]) for at in range(count))


def train_text_matching(learner: Learner, *, steps: int, batch: int, seed: int, log: Log) -> None:
    """Sentences are as close as the facts they share: CoSENT, on both kinds of vectors."""
    learner.adapted.set_adapter("text-matching")
    optimiser = Optimiser(learner.adapted.parameters(), rate=1e-3, steps=steps)
    rng = random.Random(seed)
    for step in range(1, steps + 1):
        pairs = [pair(rng) for _ in range(batch)]
        similarities = torch.tensor([one.similarity for one in pairs])
        with torch.autocast("cpu", torch.bfloat16):
            left = learner.texts([one.left for one in pairs], "Query", _SENTENCE_TOKENS)
            right = learner.texts([one.right for one in pairs], "Query", _SENTENCE_TOKENS)
            left_multi, right_multi = learner.multi(left), learner.multi(right)
        loss = torch.stack(
            [
                cosent(_cosines(left.mean(), right.mean(), dim), similarities)
                for dim in shapes.MATRYOSHKA_DIMS
            ]
        ).mean()
        late = torch.einsum("btd,bsd->bts", left_multi, right_multi)
        late = late.masked_fill(~right.mask[:, None, :], -2.0).amax(dim=-1)
        late = torch.where(left.mask, late, 0.0).sum(dim=1) / left.mask.sum(dim=1)
        loss = loss + cosent(late, similarities)
        optimiser.step(loss)
        if step % 50 == 0:
            log.write(step, loss=loss.item())


def _cosines(left: Tensor, right: Tensor, dim: int) -> Tensor:
    return (normalize(left[:, :dim], dim=-1) * normalize(right[:, :dim], dim=-1)).sum(dim=1)


def train_code(learner: Learner, *, steps: int, batch: int, seed: int, log: Log) -> None:
    """What a function does finds its code, among functions over the same few things."""
    learner.adapted.set_adapter("code")
    optimiser = Optimiser(learner.adapted.parameters(), rate=1e-3, steps=steps)
    rng = random.Random(seed)
    for step, functions in zip(range(1, steps + 1), _functions(rng, batch), strict=False):
        meanings = [one.meaning for one in functions]
        allowed = torch.tensor(
            [
                [row == column or left != right for column, right in enumerate(meanings)]
                for row, left in enumerate(meanings)
            ]
        )
        asked = [rng.choice((one.docstring, one.query)) for one in functions]
        with torch.autocast("cpu", torch.bfloat16):
            queries = learner.texts(asked, "Query", _SENTENCE_TOKENS)
            code = learner.texts([one.code for one in functions], "Passage", TEXT_TOKENS)
            loss = contrast(learner, queries, code, code.mask, allowed)
        optimiser.step(loss)
        if step % 50 == 0:
            found = (queries.mean() @ code.mean().T).argmax(1) == torch.arange(batch)
            log.write(step, loss=loss.item(), found=found.float().mean().item())


def _functions(rng: random.Random, batch: int) -> Iterator[list[Function]]:
    while True:
        drawn = [function(rng) for _ in range(batch * 4)]
        if rng.random() < 0.7:
            # Few things, many functions of each: what else differs has to be told apart.
            drawn.sort(key=lambda one: one.meaning[0])
            start = rng.randrange(len(drawn) - batch + 1)
            drawn = drawn[start : start + batch]
        yield drawn[:batch]
