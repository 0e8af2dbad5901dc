import pytest
import torch
from torch import Tensor, nn

from serving.engine.worker.pixels import BlockwiseNorm, put_in_places


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [[8], [4, 4], [3, 1, 4], [2, 0, 6]])
def test_rows_of_images_come_where_they_belong(lengths: list[int], dtype: torch.dtype) -> None:
    # A token of the text stands within some images, as in no prompt of ours.
    is_image = torch.tensor([0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0], dtype=torch.bool)
    images = [torch.randn(length, 4) for length in lengths]
    rows = torch.randn(11, 4).to(dtype)
    expected = rows.clone()
    expected[is_image] = torch.cat(images).to(dtype)
    assert torch.equal(put_in_places(rows, images, is_image), expected)


def test_rows_without_a_place_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 rows of images for 2 places"):
        put_in_places(
            torch.zeros(4, 4), [torch.ones(3, 4)], torch.tensor([True, True, False, False])
        )
