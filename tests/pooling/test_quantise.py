import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pooling import (
    DimensionError,
    Int8Vectors,
    NonFiniteError,
    binary,
    dequantise,
    int8,
    ubinary,
    unit,
    unpack,
)
from tests.pooling import oracle
from tests.pooling.oracle import DEVICES, DTYPES, examples, normal, scales, seeds

dims = st.integers(1, 40)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@examples
@given(dim=dims, seed=seeds)
def test_bits_are_the_signs_packed_highest_first(device, dtype, dim, seed):
    vectors = normal(3, dim, seed=seed).to(device, dtype)
    packed = ubinary(vectors)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [oracle.pack(row) for row in oracle.rows(vectors)]
    assert np.array_equal(
        packed.cpu().numpy(), np.packbits(vectors.cpu().float().numpy() > 0, axis=-1)
    )


@pytest.mark.parametrize("device", DEVICES)
@examples
@given(dim=dims, seed=seeds)
def test_binary_is_ubinary_minus_128(device, dim, seed):
    vectors = normal(3, dim, seed=seed).to(device)
    assert binary(vectors).dtype == torch.int8
    assert binary(vectors).tolist() == [
        [octet - 128 for octet in row] for row in ubinary(vectors).tolist()
    ]


def test_every_octet_has_its_binary_twin():
    bits = torch.from_numpy(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1))
    vectors = bits.float() - 0.5
    assert ubinary(vectors)[:, 0].tolist() == list(range(256))
    assert binary(vectors)[:, 0].tolist() == list(range(-128, 128))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pack", [binary, ubinary])
@examples
@given(dim=dims, seed=seeds)
def test_unpacking_gives_the_signs_back(device, pack, dim, seed):
    vectors = normal(2, 3, dim, seed=seed).to(device)
    signs = unpack(pack(vectors), dim)
    assert signs.shape == vectors.shape
    assert torch.equal(signs, torch.where(vectors > 0, 1.0, -1.0))
    assert torch.equal(pack(signs), pack(vectors))


def test_zero_and_negative_zero_are_not_positive():
    assert ubinary(torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1, -1, 0, 1])).tolist() == [0b00101001]


def test_a_dimension_that_is_not_a_multiple_of_eight_is_filled_with_zero_bits():
    assert ubinary(torch.ones(11)).tolist() == [0b11111111, 0b11100000]
    assert binary(torch.ones(11)).tolist() == [127, 0b11100000 - 128]
    assert unpack(ubinary(torch.ones(11)), 11).tolist() == [1.0] * 11


@pytest.mark.parametrize("dim", [0, -3, 8, 17])
def test_a_dimension_that_does_not_fit_the_bytes_is_refused(dim):
    with pytest.raises(
        DimensionError, match=r"got 2 bytes a vector, expected a dimension of 9\.\.16"
    ):
        unpack(ubinary(torch.ones(11)), dim)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@examples
@given(dim=dims, seed=seeds, scale=scales)
def test_an_integer_is_the_value_over_the_largest_times_127(device, dtype, dim, seed, scale):
    vectors = normal(3, dim, seed=seed, scale=scale).to(device, dtype)
    quantised = int8(vectors)
    assert quantised.scales.shape == (3,)
    rows = oracle.rows(vectors)
    for values, step, row in zip(
        quantised.values.tolist(), quantised.scales.tolist(), rows, strict=True
    ):
        largest = max(map(abs, row))
        assert step == pytest.approx(largest / 127, rel=1e-6, abs=1e-44)
        if step > 1e-30:
            assert max(map(abs, values)) == 127
            assert values == pytest.approx([value / step for value in row], abs=0.5001)


@pytest.mark.parametrize("device", DEVICES)
@examples
@given(dim=dims, seed=seeds, scale=scales)
def test_dequantising_is_off_by_half_a_scale_at_most_and_is_stable(device, dim, seed, scale):
    vectors = normal(3, dim, seed=seed, scale=scale).to(device)
    quantised = int8(vectors)
    restored = dequantise(quantised)
    assert ((restored - vectors).abs() <= 0.5001 * quantised.scales[:, None]).all()
    assert torch.equal(int8(restored).values, quantised.values)


@examples
@given(
    values=st.lists(st.integers(-127, 127), min_size=1, max_size=20), exponent=st.integers(-20, 20)
)
def test_dequantising_multiplies_integers_by_their_scale_exactly(values, exponent):
    scale = 2.0**exponent
    quantised = Int8Vectors(torch.tensor(values, dtype=torch.int8), torch.tensor(scale))
    assert dequantise(quantised).tolist() == [value * scale for value in values]


@examples
@given(seed=seeds)
def test_negating_a_vector_negates_its_integers(seed):
    vectors = normal(4, 16, seed=seed)
    assert torch.equal(int8(-vectors).values, -int8(vectors).values)


@examples
@given(seed=seeds, factor=st.sampled_from([1e-3, 0.5, 7.0, 1e4]))
def test_cosines_survive_without_the_scales(seed, factor):
    vectors = unit(normal(2, 256, seed=seed))
    integers = unit(int8(vectors * torch.tensor([[1.0], [factor]])).values.float())
    assert float(integers[0] @ integers[1]) == pytest.approx(
        float(vectors[0] @ vectors[1]), abs=0.01
    )


def test_a_zero_vector_stays_zero():
    quantised = int8(torch.zeros(2, 8))
    assert quantised.scales.tolist() == [0, 0]
    assert dequantise(quantised).tolist() == torch.zeros(2, 8).tolist()


@pytest.mark.parametrize(
    "row", [[1e-45, -1e-45], [3e-39, 1e-45], [3.4e38, -3.4e38], [1e38, 1e-38], [65_504.0, 6e-8]]
)
def test_extreme_magnitudes_stay_within_range(row):
    vectors = torch.tensor([row])
    quantised = int8(vectors)
    assert quantised.values.abs().max() <= 127
    assert torch.isfinite(dequantise(quantised)).all()
    assert (
        (dequantise(quantised) - vectors).abs() <= 0.51 * vectors.abs().max() / 127 + 1e-44
    ).all()


@pytest.mark.parametrize("shape", [(16,), (3, 16), (2, 3, 16)])
def test_leading_axes_are_kept(shape):
    vectors = normal(*shape, seed=0)
    assert ubinary(vectors).shape == binary(vectors).shape == (*shape[:-1], 2)
    assert int8(vectors).values.shape == shape
    assert int8(vectors).scales.shape == shape[:-1]


@pytest.mark.parametrize("quantise", [binary, ubinary, int8])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_a_bit_cannot_show_is_refused(quantise, bad):
    vectors = normal(3, 16, seed=0)
    vectors[1, 5] = bad
    with pytest.raises(
        NonFiniteError, match=r"got 1 of 48 values NaN or infinite in shape \(3, 16\)"
    ):
        quantise(vectors)
