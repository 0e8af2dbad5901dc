"""nDCG of two sides against judgments, and how sure their difference is.

Knows scores and judgments; pytrec_eval, which mteb scores with too, and scipy do the arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.quality.compare.agreement import Scores, Values, ranking
from benchmarks.quality.reading import Relevant

CONFIDENCE = 0.95
NUM_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of both sides over the same queries.

    Attributes:
        a: one a query.
        b: one a query.
        low: of the interval of the mean of `b - a`; None for a single query.
        high: of the same.
    """

    a: Values
    b: Values
    low: float | None
    high: float | None

    @property
    def mean(self) -> float:
        """How much better B is."""
        return float((self.b - self.a).mean())


def ndcg(
    scores: Scores, queries: Sequence[str], documents: Sequence[str], relevant: Relevant, k: int
) -> Values:
    """nDCG@k of each query: `sum over ranks r <= k of rel_r / log2(r + 1)`, over that of the best ranking.

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20, 2002, in
    trec_eval's form (linear gain), by pytrec_eval.
    """
    import pytrec_eval

    best = ranking(scores, documents)[:, :k]
    found = {
        query: {documents[at]: float(row[at]) for at in order}
        for query, row, order in zip(queries, scores, best, strict=True)
    }
    # It reads judgments by query, and none that it is not asked about.
    judged = {query: relevant[query] for query in queries}
    name = f"ndcg_cut.{k}"
    results = pytrec_eval.RelevanceEvaluator(judged, {name}).evaluate(found)
    return np.array([results[query][f"ndcg_cut_{k}"] for query in queries])


def difference(a: Values, b: Values, *, seed: int = 0) -> Difference:
    """The mean of `b - a` over the queries with its 95 % interval: paired, percentile bootstrap.

    Queries are drawn again with replacement, 10,000 times, each with both of its values; the interval is from the
    2.5th to the 97.5th percentile of the means. Source: Efron and Tibshirani, "An Introduction to the Bootstrap",
    1993, chapter 13; for retrieval, Sakai, "Evaluating evaluation metrics based on the bootstrap", SIGIR 2006.

    Args:
        a: one value a query.
        b: one value of the same query.
        seed: of the draws.
    """
    if len(a) < 2:
        return Difference(a, b, None, None)
    from scipy import stats

    interval = stats.bootstrap(
        (b - a,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=NUM_RESAMPLES,
        # As one array of all draws this would be gigabytes for thousands of queries.
        batch=500,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Difference(a, b, float(interval.low), float(interval.high))
