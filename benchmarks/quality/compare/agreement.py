"""How alike two sets of vectors and two sets of rankings are. Pure functions; knows no specs and no files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Scores = NDArray[np.float32]
"""[query, document]."""

Values = NDArray[np.float64]
"""One an input, or one a query."""

PERCENTILES = (0, 1, 5, 50, 95)


@dataclass(frozen=True, slots=True)
class Cosines:
    """The cosine of A's and B's vector of the same input.

    Attributes:
        values: one an input, queries and documents.
        percentiles: the values below which 0 (the least), 1, 5, 50 and 95 percent of them lie.
    """

    values: Values
    percentiles: dict[int, float]


@dataclass(frozen=True, slots=True)
class RankAgreement:
    """How alike two rankings of the same documents are, one value a query.

    Attributes:
        overlap: by k, the part of A's first k documents that is among B's first k.
        top1: 1 where both put the same document first, else 0.
        kendall: tau-b over all documents; NaN where a side scores all alike.
        spearman: rho over all documents; NaN where a side scores all alike.
    """

    overlap: dict[int, Values]
    top1: Values
    kendall: Values
    spearman: Values


def cosines(a: Sequence[Tensor], b: Sequence[Tensor]) -> Cosines | str:
    """`a_i . b_i / (|a_i| |b_i|)` for every input i; for multi-vectors its mean over the tokens.

    Returns:
        The cosines, or why there are none: the vectors do not lie in one space.
    """
    for one, other in zip(a, b, strict=True):
        if one.ndim != other.ndim:
            return "A and B are single vectors and multi-vectors"
        if one.shape[-1] != other.shape[-1]:
            return f"A has {one.shape[-1]} dimensions and B {other.shape[-1]}"
        if one.shape != other.shape:
            return f"an input has {one.shape[0]} tokens in A and {other.shape[0]} in B"
    found = np.array(
        [
            float(functional.cosine_similarity(one, other, dim=-1).mean())
            for one, other in zip(a, b, strict=True)
        ]
    )
    percentiles = np.percentile(found, PERCENTILES).tolist()
    return Cosines(found, dict(zip(PERCENTILES, percentiles, strict=True)))


def ranking(scores: Scores, ids: Sequence[str]) -> NDArray[np.int64]:
    """Documents of each query, best first, [query, document]; equal scores by id, the greater first.

    The rule for equal scores is trec_eval's, so that every figure here is of the same ranking.
    """
    by_id = np.argsort(np.argsort(np.array(ids)))
    return np.stack([np.lexsort((by_id, row))[::-1] for row in scores])


def rank_agreement(a: Scores, b: Scores, ids: Sequence[str], ks: Sequence[int]) -> RankAgreement:
    """Compare the rankings of the same documents by two sides' scores.

    `overlap@k = |A_k n B_k| / k` with A_k the first k documents of A, k at most the number of documents.
    tau-b counts pairs that both sides order alike, less those they order differently, with ties taken out of
    the scale (Kendall, "The treatment of ties in ranking problems", Biometrika 33, 1945); rho is the
    correlation of ranks (Spearman, 1904). Both are scipy's, over the scores of all documents.

    Args:
        a: A's scores.
        b: B's.
        ids: of the documents.
        ks: depths of the overlap.
    """
    from scipy import stats

    first, second = ranking(a, ids), ranking(b, ids)
    depths = dict.fromkeys(min(k, len(ids)) for k in ks)
    overlap = {
        k: np.array(
            [
                len(np.intersect1d(one[:k], other[:k])) / k
                for one, other in zip(first, second, strict=True)
            ]
        )
        for k in depths
    }
    correlated = [
        (float(stats.kendalltau(one, other).statistic), float(_spearman(one, other)))
        for one, other in zip(a, b, strict=True)
    ]
    return RankAgreement(
        overlap=overlap,
        top1=(first[:, 0] == second[:, 0]).astype(np.float64),
        kendall=np.array([tau for tau, _ in correlated]),
        spearman=np.array([rho for _, rho in correlated]),
    )


def _spearman(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    from scipy import stats

    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        # scipy warns of it, and says NaN too.
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)
