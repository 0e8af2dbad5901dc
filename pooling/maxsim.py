"""Late interaction: how well a document's tokens answer a query's tokens.

It does not know about ranking, thresholds or what the vectors stand for; unit vectors make the
products cosines, but nothing here relies on it.

Documents are ragged. They are laid end to end and cut apart again before the max, never padded, so
no padding can win one.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from pooling.errors import EmptySpanError, ShapeError

_BLOCK_QUERY_TOKENS = 1024
_BLOCK_DOCUMENT_TOKENS = 8192
_BLOCK_SIMILARITIES = _BLOCK_QUERY_TOKENS * _BLOCK_DOCUMENT_TOKENS
"""Similarities held at once: 32 MiB in float32."""


def maxsim(
    query: Float[Tensor, "query_token dim"], document: Float[Tensor, "document_token dim"]
) -> Float32[Tensor, ""]:
    """`sum over q of (max over d of q . d)`, in float32.

    Source: Khattab and Zaharia, "ColBERT", arXiv:2004.12832, equation 3.

    Raises:
        EmptySpanError: the query or the document has no token.
        ShapeError: their dimensions differ.
    """
    return maxsim_scores([query], [document])[0, 0]


def maxsim_scores(
    queries: Sequence[Float[Tensor, "_ dim"]], documents: Sequence[Float[Tensor, "_ dim"]]
) -> Float32[Tensor, "query document"]:
    """`maxsim` of every query with every document, in the order given.

    Temporaries are bounded whatever the number of inputs: a block of queries meets a block of
    documents, in float32. Neighbours in a block may change a score by float32 rounding.

    Raises:
        EmptySpanError: no query, no document, or one of them without a token.
        ShapeError: an input is not (token, dim) with one dim for all.
    """
    _require_same_dim(queries, documents)
    rows = []
    for query_block in _blocks(queries, _BLOCK_QUERY_TOKENS):
        rows.append(
            torch.cat(
                [
                    _block_scores(query_block, document_block)
                    for document_block in _blocks(documents, _BLOCK_DOCUMENT_TOKENS)
                ],
                dim=1,
            )
        )
    return torch.cat(rows)


def _block_scores(
    queries: Sequence[Float[Tensor, "_ dim"]], documents: Sequence[Float[Tensor, "_ dim"]]
) -> Float32[Tensor, "query document"]:
    query_lengths = [query.shape[0] for query in queries]
    document_lengths = [document.shape[0] for document in documents]
    document_tokens = torch.cat(list(documents)).float()
    query_tokens = torch.cat(list(queries)).float()
    # A single input may be longer than a block, so the product itself is cut as well.
    slice_tokens = max(1, _BLOCK_SIMILARITIES // document_tokens.shape[0])
    best = torch.cat(
        [
            _best(document_tokens @ query_slice.T, document_lengths)
            for query_slice in torch.split(query_tokens, slice_tokens)
        ],
        dim=1,
    )
    return torch.stack([part.sum(dim=1) for part in torch.split(best, query_lengths, dim=1)])


def _best(
    similarities: Float32[Tensor, "document_token query_token"], document_lengths: list[int]
) -> Float32[Tensor, "document query_token"]:
    """For each query token its best similarity within each document."""
    return torch.stack([part.amax(dim=0) for part in torch.split(similarities, document_lengths)])


def _blocks(
    vectors: Sequence[Float[Tensor, "_ dim"]], max_tokens: int
) -> Iterator[list[Float[Tensor, "_ dim"]]]:
    """Runs of neighbours with at most `max_tokens` together; a longer input stands alone."""
    block: list[Float[Tensor, "_ dim"]] = []
    num_tokens = 0
    for vector in vectors:
        if block and num_tokens + vector.shape[0] > max_tokens:
            yield block
            block, num_tokens = [], 0
        block.append(vector)
        num_tokens += vector.shape[0]
    if block:
        yield block


def _require_same_dim(
    queries: Sequence[Float[Tensor, "..."]], documents: Sequence[Float[Tensor, "..."]]
) -> None:
    if not queries or not documents:
        raise EmptySpanError(
            f"MaxSim compares at least one query with at least one document, got {len(queries)} "
            f"queries and {len(documents)} documents."
        )
    dim = queries[0].shape[-1]
    for name, vectors in (("query", queries), ("document", documents)):
        for index, vector in enumerate(vectors):
            if vector.ndim != 2 or vector.shape[1] != dim:
                raise ShapeError(
                    f"{name} {index} has shape {tuple(vector.shape)}, expected (token, {dim}). "
                    "Compare multi-vectors of the same model and the same dimension."
                )
            if vector.shape[0] == 0:
                raise EmptySpanError(
                    f"{name} {index} has no tokens, expected at least one. Drop it: a max over "
                    "nothing does not exist."
                )
