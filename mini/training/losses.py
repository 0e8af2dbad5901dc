"""The losses of the paper: InfoNCE over single and multi-vectors, Matryoshka cuts, CoSENT.

Source: jina-embeddings-v4 (https://arxiv.org/abs/2506.18902), section 4. Everything in float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

SINGLE_TEMPERATURE = 0.05
MULTI_TEMPERATURE = 0.02
COSENT_TEMPERATURE = 0.05


def info_nce(scores: Tensor, allowed: Tensor, temperature: float) -> Tensor:
    """Contrast each query with its page among all pages of the batch, and each page with its query.

    Source: InfoNCE (https://arxiv.org/abs/1807.03748), in both directions.

    Args:
        scores: [query, page]; the diagonal is right.
        allowed: bool [query, page]; False where a page off the diagonal answers the query as well.
        temperature: scores are divided by it.
    """
    logits = torch.where(allowed, scores / temperature, -torch.inf)
    right = torch.arange(len(scores))
    return (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2


def matryoshka_info_nce(
    queries: Tensor, pages: Tensor, allowed: Tensor, dims: Sequence[int]
) -> Tensor:
    """InfoNCE of single vectors, the mean over cuts to `dims`, each cut scaled to unit length again.

    Source: Matryoshka representation learning (https://arxiv.org/abs/2205.13147), equation 1.
    """
    losses = [
        info_nce(
            normalize(queries[:, :dim], dim=-1) @ normalize(pages[:, :dim], dim=-1).T,
            allowed,
            SINGLE_TEMPERATURE,
        )
        for dim in dims
    ]
    return torch.stack(losses).mean()


def late_interaction(
    queries: Tensor, query_mask: Tensor, pages: Tensor, page_mask: Tensor
) -> Tensor:
    """MaxSim of every query and every page, divided by the query's tokens: [query, page].

    Source: ColBERT (https://arxiv.org/abs/2004.12832), section 3.3.

    Args:
        queries: unit vectors [query, token, dim].
        query_mask: bool [query, token].
        pages: unit vectors [page, token, dim].
        page_mask: bool [page, token].
    """
    similarity = torch.einsum("qtd,psd->qpts", queries, pages)
    similarity = similarity.masked_fill(~page_mask[None, :, None, :], -2.0)
    best = similarity.amax(dim=-1)
    best = torch.where(query_mask[:, None, :], best, 0.0)
    return best.sum(dim=-1) / query_mask.sum(dim=1)[:, None]


def cosent(cosines: Tensor, similarities: Tensor) -> Tensor:
    """Pairs that are more similar should have the larger cosine.

    Source: CoSENT (https://kexue.fm/archives/8847): log(1 + sum over pairs i, j with similarity i > j of
    exp((cos j - cos i) / temperature)).
    """
    differences = (cosines[None, :] - cosines[:, None]) / COSENT_TEMPERATURE
    ordered = similarities[:, None] > similarities[None, :]
    return torch.logsumexp(torch.cat([torch.zeros(1), differences[ordered]]), dim=0)
