"""The language model over pages and texts: hidden states, and the vectors that are made of them."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, normalize
from transformers import Qwen2_5_VLForConditionalGeneration as Model

from mini.training.sequences import ImageFrame, Texts


@dataclass(frozen=True, slots=True)
class Hidden:
    """Hidden states [example, token, hidden] after the last norm, and which tokens are meant."""

    states: Tensor
    mask: Tensor

    def mean(self) -> Tensor:
        """Unit vectors [example, hidden]: the mean over the tokens that are meant."""
        kept = self.mask.unsqueeze(-1)
        summed = torch.where(kept, self.states.float(), 0.0).sum(dim=1)
        return normalize(summed / kept.sum(dim=1), dim=-1)


def run(model: Model, embeds: Tensor, positions: Tensor) -> Tensor:
    """Hidden states [example, token, hidden] of embedded tokens; attention is causal, pads come last."""
    examples = embeds.shape[0]
    output = model.model.language_model(
        inputs_embeds=embeds, position_ids=positions.expand(3, examples, -1), use_cache=False
    )
    states: Tensor = output.last_hidden_state
    return states


def read_texts(model: Model, texts: Texts) -> Hidden:
    """Hidden states of texts."""
    embeds = model.get_input_embeddings()(texts.ids)
    positions = torch.arange(texts.ids.shape[1]).expand(3, 1, -1)
    return Hidden(run(model, embeds, positions), texts.mask)


def read_pages(model: Model, seen: Tensor, frame: ImageFrame, captions: Texts | None) -> Hidden:
    """Hidden states of pages in their template, with captions after it if there are any.

    Args:
        model: base, or base with an adapter.
        seen: [page, image token, hidden], from the vision tower.
        frame: the template.
        captions: what follows the template; None for nothing.

    Returns:
        All hidden states; the mask marks the span of the image.
    """
    pages, embed = seen.shape[0], model.get_input_embeddings()
    parts = [
        embed(frame.before).expand(pages, -1, -1),
        seen.float(),
        embed(frame.after).expand(pages, -1, -1),
    ]
    if captions is not None:
        parts.append(embed(captions.ids))
    embeds = torch.cat(parts, dim=1)
    states = run(model, embeds, frame.positions(embeds.shape[1]))
    mask = torch.zeros(states.shape[:2], dtype=torch.bool)
    mask[:, frame.span] = True
    return Hidden(states, mask)


def caption_loss(model: Model, pages: Hidden, frame: ImageFrame, captions: Texts) -> Tensor:
    """Cross entropy of each caption token, given the page and the tokens before it."""
    states = pages.states[:, frame.length - 1 : -1]
    return _next_token_loss(model, states, captions.ids, captions.mask)


def text_loss(model: Model, hidden: Hidden, texts: Texts) -> Tensor:
    """Cross entropy of each token of a text but the first, given those before it."""
    return _next_token_loss(model, hidden.states[:, :-1], texts.ids[:, 1:], texts.mask[:, 1:])


def _next_token_loss(model: Model, states: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    # The head is tied to the embeddings, and rows that nobody asks for are not computed.
    weight = cast("Tensor", model.get_input_embeddings().weight)
    logits = linear(states[mask], weight)
    return cross_entropy(logits.float(), ids[mask])
