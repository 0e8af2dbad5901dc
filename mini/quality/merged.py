"""The merged checkpoint as users run it, polyvec's Python API over vLLM, on the held-out pages.

Each way to keep a vector is judged by the same queries: whole, cut, quantised, and one vector a token.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from mini.quality.figures import Figure, ndcg_at_10, ranks, recall_at_1
from mini.quality.sets import Sets
from pooling import binary, dequantise, int8, maxsim_scores, truncate, unpack
from serving import Embedder

TASK = "retrieval"


@dataclass(frozen=True, slots=True)
class Kept:
    """One way to keep the vectors of the held-out pages.

    Attributes:
        name: what is kept.
        page_bytes: of one page.
        first: recall@1.
        ndcg: nDCG@10.
    """

    name: str
    page_bytes: int
    first: Figure
    ndcg: Figure


@dataclass(frozen=True, slots=True)
class Vectors:
    """Of the held-out queries and pages: unit vectors [500, hidden], and multi-vectors of each."""

    queries: Tensor
    pages: Tensor
    query_tokens: list[Tensor]
    page_tokens: list[Tensor]


def embed(merged: Path, sets: Sets) -> Vectors:
    """Embed queries and pages, once as single vectors and once as multi-vectors."""
    texts = [query.text for query in sets.pages.queries]
    images = [page.image for page in sets.pages.pages]
    with Embedder.load(merged, tasks=[TASK]) as embedder:
        singles = [
            cast("Tensor", embedder.encode(inputs, prompt_name="query", convert_to_tensor=True))
            for inputs in (texts, images)
        ]
        multi = [
            cast(
                "list[Tensor]",
                embedder.encode(
                    inputs, prompt_name="query", return_multivector=True, convert_to_numpy=False
                ),
            )
            for inputs in (texts, images)
        ]
    return Vectors(singles[0], singles[1], multi[0], multi[1])


def rows(vectors: Vectors) -> list[Kept]:
    """The table, from the largest vectors to the smallest, multi-vectors last."""
    queries, pages = vectors.queries, vectors.pages
    whole = pages.shape[1]

    def kept(name: str, page_bytes: int, scores: Tensor) -> Kept:
        found = ranks(scores)
        return Kept(name, page_bytes, recall_at_1(found), ndcg_at_10(found))

    table = [kept(f"single, {whole} dimensions, float32", 4 * whole, queries @ pages.T)]
    for dim in (whole // 2, whole // 4, whole // 8):
        scores = truncate(queries, dim) @ truncate(pages, dim).T
        table.append(kept(f"single, {dim} dimensions, float32", 4 * dim, scores))
    rounded = dequantise(int8(pages))
    table.append(kept(f"single, {whole} dimensions, int8", whole, queries @ rounded.T))
    signs = [unpack(binary(one), whole) for one in (queries, pages)]
    table.append(
        kept(f"single, {whole} dimensions, binary, queries too", whole // 8, signs[0] @ signs[1].T)
    )
    late = maxsim_scores(vectors.query_tokens, vectors.page_tokens)
    tokens, dim = vectors.page_tokens[0].shape
    table.append(kept(f"multi, {tokens} x {dim}, float16", 2 * tokens * dim, late))
    return table
