"""Everything that two sides are compared by, in one value. Knows the measures, not how they are shown."""

from dataclasses import dataclass

import numpy as np

from benchmarks.quality.compare.agreement import (
    Cosines,
    RankAgreement,
    Scores,
    cosines,
    rank_agreement,
)
from benchmarks.quality.compare.data import Data
from benchmarks.quality.compare.embedding import Side
from benchmarks.quality.compare.retrieval import Difference, difference, ndcg
from benchmarks.quality.representation import score_table

DEPTHS = (1, 5, 10, 100)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What B is beside A on one corpus.

    Attributes:
        a: A's spec, as it was written.
        b: B's.
        data: name of what it was measured on.
        num_documents: of the corpus.
        num_queries: with judgments, where there are any.
        document_bytes: of an average document in A's index and in B's.
        cosines: of the same inputs' vectors, or why they cannot be compared.
        agreement: of the rankings.
        ndcg: at `k`, of both; None without judgments.
        k: depth of nDCG.
    """

    a: str
    b: str
    data: str
    num_documents: int
    num_queries: int
    document_bytes: tuple[float, float]
    cosines: Cosines | str
    agreement: RankAgreement
    ndcg: Difference | None
    k: int


def compare_sides(a: Side, b: Side, data: Data, *, k: int = 10, seed: int = 0) -> Comparison:
    """Compare two sides' vectors of the same data.

    Args:
        a: the reference.
        b: what might replace it.
        data: that both have embedded.
        k: depth of nDCG, and one of the depths of the overlap.
        seed: of the bootstrap.
    """
    queries, documents = data.queries.ids, data.documents.ids
    scores = _scores(a), _scores(b)
    judged = None
    if data.relevant is not None:
        relevant = data.relevant
        found = [ndcg(one, queries, documents, relevant, k) for one in scores]
        judged = difference(*found, seed=seed)
    return Comparison(
        a=a.spec.text,
        b=b.spec.text,
        data=data.name,
        num_documents=len(documents),
        num_queries=len(queries),
        document_bytes=(a.document_bytes, b.document_bytes),
        cosines=cosines([*a.queries, *a.documents], [*b.queries, *b.documents]),
        agreement=rank_agreement(*scores, documents, sorted({*DEPTHS, k})),
        ndcg=judged,
        k=k,
    )


def _scores(side: Side) -> Scores:
    return np.asarray(score_table(side.queries, side.documents).numpy(), dtype=np.float32)
