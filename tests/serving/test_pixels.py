import pytest
import torch
from torch import Tensor, nn

from serving.engine.worker.pixels import BlockwiseNorm


class Whole(nn.Module):
    """As vLLM normalises."""

    input_dtype = torch.uint8

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor([0.01459, 0.01500, 0.01422]))
        self.register_buffer("bias", torch.tensor([-1.7923, -1.7521, -1.4802]))

    def forward(self, pixel_values: Tensor, visual_dtype: torch.dtype) -> Tensor:
        rows = pixel_values.reshape(len(pixel_values), 3, -1)
        rows = rows * self.weight.view(1, 3, 1) + self.bias.view(1, 3, 1)
        return rows.view(pixel_values.shape).to(visual_dtype)


@pytest.mark.parametrize("num_patches", [1, 127, 128, 129, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_give_the_bits_of_the_whole(num_patches: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(num_patches)
    pixels = torch.randint(0, 256, (num_patches, 1176), generator=generator, dtype=torch.uint8)
    norm = BlockwiseNorm(Whole())
    assert norm.input_dtype == torch.uint8
    got = norm(pixels, dtype)
    assert got.dtype == dtype
    assert torch.equal(got, Whole()(pixels, dtype))
