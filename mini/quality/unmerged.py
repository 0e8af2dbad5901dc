"""The checkpoint as it was trained, base and unmerged adapters in transformers and PEFT, on every task's set.

What an adapter is worth shows here: each task's set is embedded with each adapter, and with none.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration as Model

from mini.model import shapes
from mini.model.checkpoint import TASKS, read_checkpoint
from mini.model.pixels import patches_of, pixels_of
from mini.quality.figures import Figure, ndcg_at_10, ranks, recall_at_1, spearman
from mini.quality.sets import Sets
from mini.training.adapters import Learner, look_at, with_adapters
from mini.training.base import CELLS, SEEN
from mini.training.language import Hidden
from mini.training.sequences import Encoder, ImageFrame
from mini.training.vision import see

BASE = "base"
_BATCH = 100
_LIMIT = 96
"""Tokens of a text; no text of the sets has more."""


@dataclass(frozen=True, slots=True)
class Row:
    """One adapter, or the base, on the sets of all tasks.

    Attributes:
        adapter: a task's name, or "base".
        retrieval: nDCG@10 of queries over held-out pages.
        retrieval_first: recall@1 of the same.
        text_matching: Spearman's correlation over pairs of sentences.
        code: nDCG@10 of docstrings over functions.
    """

    adapter: str
    retrieval: Figure
    retrieval_first: Figure
    text_matching: Figure
    code: Figure


def load(checkpoint: Path) -> Learner:
    """The checkpoint in float32, from its own files; every tensor finds its place.

    Raises:
        ValueError: it has other tensors than the model.
    """
    base, adapted = read_checkpoint(checkpoint)
    model = Model(shapes.config())
    model.load_state_dict(base, strict=False)
    # The head is tied to the embeddings, and not stored.
    differ = set(dict(model.named_parameters())) ^ (set(base) | {"lm_head.weight"})
    model.requires_grad_(False)
    whole = with_adapters(model, TASKS)
    found = whole.load_state_dict(adapted, strict=False)
    differ = (differ - {"lm_head.weight"}) | set(found.unexpected_keys)
    if differ:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of polyvec-mini: {', '.join(sorted(differ)[:3])} of its tensors "
            "or of the model's have no counterpart."
        )
    whole.eval()
    encoder = Encoder.load(checkpoint)
    return Learner(whole, encoder, ImageFrame.of(encoder, CELLS, CELLS))


@torch.no_grad()
def page_vectors(learner: Learner, sets: Sets, adapter: str) -> tuple[Tensor, Tensor]:
    """Single vectors of the held-out queries and pages, all in float32: two times [500, hidden]."""
    pages = sets.pages.pages
    vectors = []
    with _active(learner, adapter):
        queries = _texts(learner, [query.text for query in sets.pages.queries], "Query")
        for start in range(0, len(pages), _BATCH):
            images = [page.image for page in pages[start : start + _BATCH]]
            patches = patches_of(pixels_of(images, SEEN))
            seen = see(learner.model.model.visual, patches, CELLS, CELLS)
            vectors.append(learner.pages(seen).mean())
    return queries, torch.cat(vectors)


@torch.no_grad()
def rows(learner: Learner, sets: Sets) -> Iterator[Row]:
    """The base and every adapter on every set."""
    seen = look_at(learner.model, sets.pages.pages)
    similarities = torch.tensor([one.similarity for one in sets.pairs])
    for adapter in (BASE, *TASKS):
        with _active(learner, adapter):
            queries = _texts(learner, [query.text for query in sets.pages.queries], "Query")
            pages = torch.cat([learner.pages(part).mean() for part in seen.tokens.split(_BATCH)])
            left = _texts(learner, [one.left for one in sets.pairs], "Query")
            right = _texts(learner, [one.right for one in sets.pairs], "Query")
            asked = _texts(learner, [one.query for one in sets.functions], "Query")
            code = _texts(learner, [one.code for one in sets.functions], "Passage")
        found = ranks(queries @ pages.T)
        yield Row(
            adapter,
            ndcg_at_10(found),
            recall_at_1(found),
            spearman((left * right).sum(dim=1), similarities),
            ndcg_at_10(ranks(asked @ code.T)),
        )


@contextmanager
def _active(learner: Learner, adapter: str) -> Iterator[None]:
    if adapter != BASE:
        learner.adapted.set_adapter(adapter)
    with learner.adapted.disable_adapter() if adapter == BASE else nullcontext():
        yield


def _texts(learner: Learner, texts: Sequence[str], prefix: str) -> Tensor:
    parts: list[Hidden] = [
        learner.texts(texts[start : start + _BATCH], prefix, _LIMIT)
        for start in range(0, len(texts), _BATCH)
    ]
    return torch.cat([part.mean() for part in parts])
