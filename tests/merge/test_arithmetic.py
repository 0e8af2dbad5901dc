"""The arithmetic against PEFT's own merge, bit for bit."""

import math

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_tools.arithmetic import merge_rows, merged
from merge_tools.digest import pieces_of, split_rows

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


class OneLinear(torch.nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.linear.weight.data = weight


def by_peft(
    weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, alpha: float, *, rslora: bool
) -> torch.Tensor:
    config = peft.LoraConfig(
        r=a.shape[0],
        lora_alpha=alpha,
        target_modules=["linear"],
        use_rslora=rslora,
    )
    model = peft.get_peft_model(OneLinear(weight.clone()), config)
    layer = model.base_model.model.linear
    layer.lora_A["default"].weight.data = a.float()
    layer.lora_B["default"].weight.data = b.float()
    return model.merge_and_unload().linear.weight.data


def in_blocks(
    weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, max_elements: int
) -> torch.Tensor:
    """The executor's way: in runs of rows, into reused memory."""
    out = torch.empty_like(weight)
    memory = torch.empty(weight.numel())
    for first, count in split_rows(*weight.shape, max_elements):
        rows = slice(first, first + count)
        result = memory[: count * weight.shape[1]].view(count, -1)
        merge_rows(weight[rows].float(), a.float(), b.float()[rows], scale, result)
        out[rows].copy_(result)
    return out


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rslora", [False, True])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    num_out=st.integers(1, 700),
    num_in=st.integers(1, 700),
    rank=st.sampled_from([1, 2, 3, 7, 8, 16, 32, 33, 64, 100, 256]),
    alpha=st.sampled_from([1, 8, 16, 20, 32, 0.3]),
    seed=st.integers(0, 1000),
)
def test_whole_and_blockwise_merges_equal_pefts_bit_for_bit(
    dtype: torch.dtype,
    rslora: bool,
    num_out: int,
    num_in: int,
    rank: int,
    alpha: float,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(num_out, num_in, generator=generator) * 0.05).to(dtype)
    a = torch.randn(rank, num_in, generator=generator).to(torch.bfloat16)
    b = (torch.randn(num_out, rank, generator=generator) * 0.02).to(torch.bfloat16)
    scale = alpha / (math.sqrt(rank) if rslora else rank)
    expected = by_peft(weight, a, b, alpha, rslora=rslora)

    assert torch.equal(merged(weight, a, b, scale, dtype), expected)
    assert torch.equal(in_blocks(weight, a, b, scale, 4096), expected)


def test_true_sized_layers_merge_blockwise_as_peft_merges_them_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = 0
    for num_out, num_in in ((2048, 11008), (256, 2048), (3420, 1280)):
        weight = torch.randn(num_out, num_in, generator=generator) * 0.02
        a = torch.randn(32, num_in, generator=generator)
        b = torch.randn(num_out, 32, generator=generator) * 0.02
        expected = by_peft(weight, a, b, 20, rslora=True)
        assert torch.equal(in_blocks(weight, a, b, 20 / math.sqrt(32), 256 << 10), expected)
        seen += 1
    assert seen == 3


def test_rounding_twice_would_be_a_different_result() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(256, 256, generator=generator) * 0.05).bfloat16()
    a = torch.randn(8, 256, generator=generator).bfloat16()
    b = (torch.randn(256, 8, generator=generator) * 0.02).bfloat16()
    twice = weight + (b.float() @ a.float() * 2.0).bfloat16()
    once = merged(weight, a, b, 2.0, torch.bfloat16)
    assert 0.02 < float((once != twice).float().mean()) < 0.5


@settings(max_examples=200, deadline=None)
@given(
    num_rows=st.integers(1, 5000),
    columns=st.integers(1, 3000),
    max_elements=st.integers(1, 1 << 20),
)
def test_runs_of_rows_cover_every_row_once_and_are_never_short(
    num_rows: int, columns: int, max_elements: int
) -> None:
    runs = split_rows(num_rows, columns, max_elements)
    assert [first for first, _ in runs] == [
        sum(count for _, count in runs[:number]) for number in range(len(runs))
    ]
    assert sum(count for _, count in runs) == num_rows
    assert all(count >= min(16, num_rows) for _, count in runs)
    assert all(first % 16 == 0 for first, _ in runs)


@pytest.mark.parametrize("shape", [(), (1,), (151936, 2048), (1280, 3, 2, 14, 14), (5, 0), (0, 5)])
def test_pieces_cover_a_tensor_of_any_shape(shape: tuple[int, ...]) -> None:
    pieces = pieces_of(shape)
    assert sum(piece.num_elements for piece in pieces) == math.prod(shape)
