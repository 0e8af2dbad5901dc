import itertools
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from pooling import EmptySpanError, ShapeError, maxsim, maxsim_scores, unit
from tests.paths import GOLDEN_OUTPUTS
from tests.pooling import oracle
from tests.pooling.oracle import DEVICES, DTYPES, examples, normal, seeds, sizes

lengths = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def ragged(lengths: list[int], dim: int, seed: int) -> list[torch.Tensor]:
    return [unit(normal(length, dim, seed=seed + i)) for i, length in enumerate(lengths)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@examples
@given(query=lengths, document=lengths, dim=sizes, seed=seeds)
def test_scores_equal_the_double_loop_for_ragged_inputs(device, dtype, query, document, dim, seed):
    queries = [vector.to(device, dtype) for vector in ragged(query, dim, seed)]
    documents = [vector.to(device, dtype) for vector in ragged(document, dim, seed + 100)]
    scores = maxsim_scores(queries, documents)
    assert scores.dtype == torch.float32
    assert scores.shape == (len(queries), len(documents))
    for i, j in itertools.product(range(len(queries)), range(len(documents))):
        exact = oracle.maxsim(oracle.rows(queries[i]), oracle.rows(documents[j]))
        assert float(scores[i, j]) == pytest.approx(exact, abs=1e-5)
        assert float(maxsim(queries[i], documents[j])) == pytest.approx(exact, abs=1e-5)


@examples
@given(document=lengths, seed=seeds)
def test_negative_similarities_of_ragged_documents_are_not_lifted_to_zero(document, seed):
    # A padded row of zeros would win every one of these maxima.
    queries = [unit(normal(3, 8, seed=seed).abs() + 0.1)]
    documents = [-vector.abs() - 0.1 for vector in ragged(document, 8, seed + 1)]
    scores = maxsim_scores(queries, documents)
    assert (scores < 0).all()
    for j, vectors in enumerate(documents):
        exact = oracle.maxsim(oracle.rows(queries[0]), oracle.rows(vectors))
        assert float(scores[0, j]) == pytest.approx(exact, abs=1e-5)


@examples
@given(query=lengths, document=lengths, seed=seeds, data=st.data())
def test_the_order_of_a_batch_permutes_its_scores(query, document, seed, data):
    queries, documents = ragged(query, 16, seed), ragged(document, 16, seed + 100)
    scores = maxsim_scores(queries, documents)
    rows = data.draw(st.permutations(range(len(queries))))
    columns = data.draw(st.permutations(range(len(documents))))
    shuffled = maxsim_scores([queries[i] for i in rows], [documents[j] for j in columns])
    assert torch.allclose(shuffled, scores[rows][:, columns], atol=1e-5)


@examples
@given(document=lengths, seed=seeds, data=st.data())
def test_the_order_of_tokens_does_not_matter(document, seed, data):
    query = ragged([6], 16, seed)[0]
    tokens = torch.cat(ragged(document, 16, seed + 1))
    order = data.draw(st.permutations(range(tokens.shape[0])))
    assert torch.allclose(maxsim(query, tokens[order]), maxsim(query, tokens), atol=1e-5)


@pytest.mark.parametrize("limit", [1, 7, 64])
def test_the_size_of_a_block_does_not_matter(limit, monkeypatch):
    queries, documents = ragged([5, 1, 8, 3], 16, 0), ragged([2, 9, 1, 4, 7], 16, 100)
    expected = maxsim_scores(queries, documents)
    module = sys.modules["pooling.maxsim"]  # `pooling.maxsim` itself is the function
    for name in ("_BLOCK_QUERY_TOKENS", "_BLOCK_DOCUMENT_TOKENS", "_BLOCK_SIMILARITIES"):
        monkeypatch.setattr(module, name, limit)
    assert torch.allclose(maxsim_scores(queries, documents), expected, atol=1e-5)


def test_a_nan_stays_in_the_scores_of_its_document():
    queries, documents = ragged([3], 8, 0), ragged([4, 4], 8, 10)
    documents[0][2, 1] = torch.nan
    assert maxsim_scores(queries, documents).isnan().tolist() == [[True, False]]


def test_a_golden_multi_vector_scores_its_own_number_of_tokens_and_no_other_scores_more():
    with np.load(GOLDEN_OUTPUTS / "golden.npz") as golden:
        vectors = [
            torch.from_numpy(golden[f"retrieval/query/text_{i}/multi"]) for i in range(10)
        ] + [torch.from_numpy(golden[f"retrieval/image_{i}/multi"]) for i in range(7)]
    scores = maxsim_scores(vectors, vectors)
    lengths = torch.tensor([float(vector.shape[0]) for vector in vectors])
    assert len(vectors) == 17
    assert torch.allclose(scores.diagonal(), lengths, rtol=1e-5)
    assert (scores <= lengths[:, None] * (1 + 1e-5)).all()
    for i, j in [(0, 6), (6, 0), (7, 16), (16, 7), (9, 13)]:
        exact = oracle.maxsim(oracle.rows(vectors[i])[:8], oracle.rows(vectors[j]))
        assert float(maxsim(vectors[i][:8], vectors[j])) == pytest.approx(exact, abs=1e-4)


def test_nothing_to_compare_is_refused():
    some = ragged([2], 8, 0)
    with pytest.raises(EmptySpanError, match="got 0 queries and 1 documents"):
        maxsim_scores([], some)
    with pytest.raises(EmptySpanError, match="got 1 queries and 0 documents"):
        maxsim_scores(some, [])
    with pytest.raises(EmptySpanError, match="document 1 has no tokens"):
        maxsim_scores(some, [*some, torch.ones(0, 8)])
    with pytest.raises(EmptySpanError, match="query 0 has no tokens"):
        maxsim(torch.ones(0, 8), some[0])


def test_vectors_of_different_dimensions_are_refused():
    # Of a list the checker looks at one item, drawn at random: the function catches the others.
    with pytest.raises((ShapeError, TypeCheckError)):
        maxsim_scores(ragged([2], 8, 0), [*ragged([2], 8, 0), *ragged([3], 9, 0)])
    with pytest.raises(TypeCheckError):
        maxsim(ragged([2], 8, 0)[0], ragged([2], 9, 0)[0])
