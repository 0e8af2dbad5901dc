import pytest
import torch
from hypothesis import given
from jaxtyping import TypeCheckError

from pooling import EmptySpanError, Projector, ShapeError, multi_vector, project
from tests.pooling import oracle
from tests.pooling.oracle import DEVICES, DTYPES, examples, normal, scales, seeds, sizes


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@examples
@given(num_tokens=sizes, hidden=sizes, dim=sizes, seed=seeds, scale=scales)
def test_every_token_is_projected_and_normalised(
    device, dtype, num_tokens, hidden, dim, seed, scale
):
    tokens = normal(num_tokens, hidden, seed=seed, scale=scale).to(device, dtype)
    weight, bias = normal(dim, hidden, seed=seed + 1), normal(dim, seed=seed + 2)
    projector = Projector(weight.to(device, dtype), bias.to(device, dtype))
    vectors = multi_vector(tokens, projector)
    assert vectors.dtype == torch.float32
    assert vectors.shape == (num_tokens, dim)
    wide_weight = oracle.rows(projector.weight)
    wide_bias = projector.bias.double().tolist()
    for vector, token in zip(oracle.rows(vectors), oracle.rows(tokens), strict=True):
        projected = oracle.linear(token, wide_weight, wide_bias)
        # A projection that cancels to nearly nothing has no direction to compare.
        length = max(oracle.dot(projected, projected) ** 0.5, 1e-12)
        summed = max(map(abs, token)) * float(projector.weight.abs().max()) * hidden
        tolerance = 5e-7 * (1 + summed / length)
        assert vector == pytest.approx(oracle.unit(projected), abs=tolerance)


@examples
@given(seed=seeds)
def test_without_a_bias_the_bias_is_zero(seed):
    tokens, weight = normal(5, 12, seed=seed), normal(7, 12, seed=seed + 1)
    with_zero = multi_vector(tokens, Projector(weight, torch.zeros(7)))
    assert torch.allclose(multi_vector(tokens, Projector(weight, None)), with_zero, atol=1e-6)


def test_a_sequence_longer_than_a_block_is_projected_whole_and_in_order():
    tokens, projector = normal(9000, 16, seed=3), Projector(normal(8, 16, seed=4), None)
    vectors = multi_vector(tokens, projector)
    assert vectors.shape == (9000, 8)
    for token in (0, 4095, 4096, 8191, 8192, 8999):
        alone = multi_vector(tokens[token : token + 1], projector)[0]
        assert torch.allclose(vectors[token], alone, atol=1e-6)


def test_a_nan_stays_in_its_token():
    tokens = normal(4, 8, seed=5)
    tokens[2, 3] = torch.nan
    vectors = multi_vector(tokens, Projector(normal(6, 8, seed=6), None))
    assert vectors.isnan().any(dim=1).tolist() == [False, False, True, False]


def test_a_projector_names_its_sizes():
    projector = Projector(torch.ones(128, 2048), None)
    assert (projector.dim, projector.hidden) == (128, 2048)


def test_a_projector_of_another_model_is_refused():
    with pytest.raises(ShapeError, match=r"shape \(5, 12\), expected \(token, 16\)"):
        multi_vector(normal(5, 12, seed=0), Projector(normal(8, 16, seed=0), None))


def test_zero_tokens_are_refused():
    with pytest.raises(EmptySpanError, match="at least one token"):
        multi_vector(torch.ones(0, 16), Projector(normal(8, 16, seed=0), None))


def test_a_flat_sequence_fails_the_shape_check():
    with pytest.raises(TypeCheckError):
        multi_vector(normal(16, seed=0), Projector(normal(8, 16, seed=0), None))


@pytest.mark.parametrize("num_tokens", range(1, 12))
def test_where_the_bytes_lie_changes_no_bit(num_tokens: int) -> None:
    generator = torch.Generator().manual_seed(num_tokens)
    projector = Projector(weight=torch.randn(128, 256, generator=generator), bias=None)
    rows = torch.randn(num_tokens, 256, generator=generator)
    expected = project(rows, projector)
    for offset in range(1, 16):
        room = torch.empty(rows.numel() + offset)
        elsewhere = room[offset:].view(rows.shape)
        elsewhere.copy_(rows)
        assert torch.equal(project(elsewhere, projector), expected)
