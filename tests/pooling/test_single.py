import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from pooling import (
    EmptySpanError,
    Span,
    SpanRangeError,
    mean_vector,
    single_vector,
    single_vectors,
    unit,
    whole,
)
from tests.pooling import oracle
from tests.pooling.oracle import DEVICES, DTYPES, examples, normal, scales, seeds, sizes

spans_of_12 = st.tuples(st.integers(0, 11), st.integers(1, 12)).map(
    lambda pair: Span(pair[0], min(12, pair[0] + pair[1]))
)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@examples
@given(span=spans_of_12, hidden=sizes, seed=seeds, scale=scales)
def test_the_single_vector_is_the_normalised_mean_of_its_span(
    device, dtype, span, hidden, seed, scale
):
    tokens = normal(12, hidden, seed=seed, scale=scale).to(device, dtype)
    exact = oracle.mean(oracle.rows(tokens), span.start, span.stop)
    mean, single = mean_vector(tokens, span), single_vector(tokens, span)
    assert mean.dtype == single.dtype == torch.float32
    # Cancellation costs relative precision: the bound is relative to what was summed.
    summed = float(tokens.float().abs().max())
    assert mean.tolist() == pytest.approx(exact, abs=2e-7 * summed)
    assert single.tolist() == pytest.approx(oracle.unit(mean.double().tolist()), abs=3e-7)


@pytest.mark.parametrize("device", DEVICES)
@examples
@given(spans=st.lists(spans_of_12, min_size=1, max_size=6), seed=seeds)
def test_late_chunks_equal_their_spans_pooled_alone_bit_for_bit_in_order(device, spans, seed):
    tokens = normal(12, 33, seed=seed).to(device)
    chunks = single_vectors(tokens, spans)
    assert chunks.shape == (len(spans), 33)
    for chunk, span in zip(chunks, spans, strict=True):
        assert torch.equal(chunk, single_vector(tokens, span))


@examples
@given(seed=seeds, num_tokens=sizes)
def test_tokens_outside_of_the_span_do_not_matter(seed, num_tokens):
    tokens = normal(num_tokens + 2, 16, seed=seed)
    poisoned = tokens.clone()
    poisoned[0] = torch.nan
    poisoned[-1] = torch.inf
    span = Span(1, num_tokens + 1)
    assert torch.equal(single_vector(poisoned, span), single_vector(tokens, span))


@examples
@given(seed=seeds, scale=scales)
def test_one_token_of_one_dimension_becomes_its_sign(seed, scale):
    token = normal(1, 1, seed=seed, scale=scale)
    assert single_vector(token, whole(1)).tolist() == [float(torch.sign(token[0, 0]))]


def test_a_long_bfloat16_text_is_summed_in_float32():
    # In bfloat16 a running sum of ones stops at 256.
    tokens = torch.ones(32_768, 8, dtype=torch.bfloat16)
    tokens[:, 1] = 3
    assert mean_vector(tokens, whole(32_768)).tolist() == [1, 3, 1, 1, 1, 1, 1, 1]


def test_the_largest_float16_values_do_not_overflow():
    tokens = torch.full((64, 16), 65_504.0, dtype=torch.float16)
    assert mean_vector(tokens, whole(64)).tolist() == [65_504.0] * 16
    assert single_vector(tokens, whole(64)).tolist() == pytest.approx([0.25] * 16, abs=1e-7)


def test_large_bfloat16_values_do_not_overflow():
    tokens = torch.full((4, 16), 1e17, dtype=torch.bfloat16)
    assert single_vector(tokens, whole(4)).tolist() == pytest.approx([0.25] * 16, abs=1e-7)


@pytest.mark.parametrize("value", [0.0, 1e-45, -3e-39, 1e-13])
def test_a_norm_below_the_floor_is_divided_by_the_floor_as_torch_does(value):
    vectors = torch.tensor([[value, value], [value, 0.0]])
    assert torch.equal(unit(vectors), torch.nn.functional.normalize(vectors, dim=-1))
    assert torch.isfinite(unit(vectors)).all()


def test_a_nan_stays_in_the_vectors_that_pool_it():
    tokens = normal(6, 4, seed=0)
    tokens[1, 2] = torch.nan
    with_nan, without = single_vectors(tokens, [Span(0, 3), Span(3, 6)])
    assert with_nan.isnan().all()
    assert torch.equal(without, single_vector(tokens, Span(3, 6)))


def test_the_input_is_not_changed_and_may_be_a_view():
    tokens = normal(8, 40, seed=1)
    before = tokens.clone()
    every_other = tokens.T[::2]
    assert torch.equal(
        single_vector(every_other, whole(20)), single_vector(every_other.contiguous(), whole(20))
    )
    assert torch.equal(tokens, before)


def test_a_span_past_the_last_token_is_refused():
    with pytest.raises(SpanRangeError, match=r"got tokens 2\.\.6 of 6"):
        single_vector(normal(6, 4, seed=0), Span(2, 7))
    with pytest.raises(SpanRangeError, match="Was the text truncated"):
        single_vectors(normal(6, 4, seed=0), [whole(6), whole(7)])


def test_late_chunking_without_a_span_is_refused():
    with pytest.raises(EmptySpanError, match="at least one span, got none"):
        single_vectors(normal(6, 4, seed=0), [])


@pytest.mark.parametrize(
    "tokens", [normal(6, seed=0), normal(2, 6, 4, seed=0), torch.ones(6, 4).int()]
)
def test_anything_but_one_sequence_of_floats_fails_the_shape_check(tokens):
    with pytest.raises(TypeCheckError):
        single_vector(tokens, Span(0, 1))
