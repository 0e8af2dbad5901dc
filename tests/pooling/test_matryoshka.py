import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pooling import DimensionError, truncate, unit
from tests.pooling import oracle
from tests.pooling.oracle import DEVICES, DTYPES, examples, normal, seeds


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@examples
@given(hidden=st.integers(1, 40), data=st.data(), seed=seeds)
def test_the_first_dimensions_are_kept_and_normalised_again(device, dtype, hidden, data, seed):
    dim = data.draw(st.integers(1, hidden))
    vectors = unit(normal(3, hidden, seed=seed).to(device)).to(dtype)
    cut = truncate(vectors, dim)
    assert cut.shape == (3, dim)
    for row, whole_row in zip(oracle.rows(cut), oracle.rows(vectors), strict=True):
        assert row == pytest.approx(oracle.unit(whole_row[:dim]), abs=3e-7)


@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 5, 24)])
def test_leading_axes_are_kept(shape):
    assert truncate(normal(*shape, seed=0), 8).shape == (*shape[:-1], 8)


@examples
@given(seed=seeds, dims=st.lists(st.integers(1, 64), min_size=2, max_size=2).map(sorted))
def test_cutting_twice_is_cutting_once(seed, dims):
    small, large = dims
    vector = unit(normal(64, seed=seed))
    assert torch.allclose(
        truncate(truncate(vector, large), small), truncate(vector, small), atol=1e-6
    )


@examples
@given(seed=seeds)
def test_the_full_dimension_changes_a_unit_vector_by_rounding_only(seed):
    vector = unit(normal(64, seed=seed))
    assert torch.allclose(truncate(vector, 64), vector, atol=1e-7)


def test_a_head_of_zeros_stays_zeros():
    vector = torch.zeros(8)
    vector[7] = 1.0
    assert truncate(vector, 4).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("dim", [0, -1, 65, 2048])
def test_a_dimension_the_vector_lacks_is_refused(dim):
    with pytest.raises(DimensionError, match=rf"truncated to 1\.\.64 dimensions, got {dim}\."):
        truncate(normal(3, 64, seed=0), dim)
