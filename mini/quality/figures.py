"""Figures over queries, each with a bootstrap interval. Knows ranks and scores; no model, no document."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
CUT = 10


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean, and the interval that holds it with 95 % confidence."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f}-{self.high:.3f})"


def ranks(scores: Tensor) -> Tensor:
    """At which rank, from 1, each query's only answer stands; a tie counts against it.

    Args:
        scores: [query, document]; the answers are on the diagonal.
    """
    return (scores >= scores.diagonal()[:, None]).sum(dim=1)


def recall_at_1(found: Tensor) -> Figure:
    """Part of the queries whose answer stands first."""
    return _figure((found == 1).double().numpy())


def ndcg_at_10(found: Tensor) -> Figure:
    """nDCG@10 with one answer a query: 1 / log2(rank + 1) up to rank 10, else 0.

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20, 2002.
    """
    gains = torch.where(found <= CUT, 1 / torch.log2(found.double() + 1), 0.0)
    return _figure(gains.numpy())


def spearman(cosines: Tensor, similarities: Tensor) -> Figure:
    """Spearman's rank correlation of cosines with known similarities, pairs drawn again for the interval."""
    left, right = cosines.double().numpy(), similarities.double().numpy()

    def correlation(one: np.ndarray, other: np.ndarray) -> float:
        return float(stats.spearmanr(one, other).statistic)

    interval = stats.bootstrap(
        (left, right),
        correlation,
        paired=True,
        vectorized=False,
        n_resamples=1000,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Figure(correlation(left, right), float(interval.low), float(interval.high))


def _figure(values: np.ndarray) -> Figure:
    """The mean with its percentile bootstrap interval.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    mean = float(values.mean())
    if np.all(values == values[0]):
        return Figure(mean, mean, mean)
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=NUM_RESAMPLES,
        batch=500,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Figure(mean, float(interval.low), float(interval.high))
