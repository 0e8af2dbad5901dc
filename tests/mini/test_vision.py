"""Training runs the same model as transformers and vLLM do; only batched."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration as Model

from mini.documents.kinds import draw_page
from mini.model import shapes
from mini.model.pixels import MEAN, STD, patches_of, pixels_of
from mini.training.language import read_pages, read_texts
from mini.training.sequences import Encoder, ImageFrame, Texts
from mini.training.vision import see
from serving.engine.imaging.patches import Grid
from serving.engine.imaging.patches import patches_of as served_patches
from serving.manifest import ImageSpec
from tests.mini.paths import CHECKPOINT


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model(shapes.config()).eval()


@pytest.fixture(scope="module")
def pages() -> list[Image.Image]:
    return [draw_page(random.Random(seed)).image for seed in range(3)]


def _both_frames(patches: torch.Tensor) -> torch.Tensor:
    cut = patches.view(-1, 3, 14, 14).unsqueeze(2).expand(-1, -1, 2, -1, -1)
    return cut.reshape(len(cut), -1)


@torch.no_grad()
def test_the_batched_tower_sees_what_transformers_sees(
    model: Model, pages: list[Image.Image]
) -> None:
    patches = patches_of(pixels_of(pages, 224))
    grid = torch.tensor([[1, 16, 16]] * len(pages))
    expected = model.model.visual(_both_frames(patches), grid_thw=grid).pooler_output
    torch.testing.assert_close(
        see(model.model.visual, patches, 8, 8).flatten(0, 1), expected, atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_pages_in_their_template_have_the_hidden_states_of_transformers(
    model: Model, pages: list[Image.Image]
) -> None:
    encoder = Encoder.load(CHECKPOINT)
    frame = ImageFrame.of(encoder, 8, 8)
    caption = encoder.texts(["invoice from Acme"], limit=8)
    image = torch.full((64,), shapes.token_id("<|image_pad|>"))
    ids = torch.cat([frame.before, image, frame.after, caption.ids[0]])[None]
    patches = patches_of(pixels_of(pages[:1], 224))
    expected = model.model(
        input_ids=ids,
        pixel_values=_both_frames(patches),
        image_grid_thw=torch.tensor([[1, 16, 16]]),
        mm_token_type_ids=(ids == image[0]).int(),
    ).last_hidden_state
    got = read_pages(model, see(model.model.visual, patches, 8, 8), frame, caption)
    torch.testing.assert_close(got.states, expected, atol=1e-4, rtol=1e-3)
    marked = ids[0][got.mask[0]]
    assert marked[0] == shapes.token_id("<|vision_start|>")
    assert marked[-1] == shapes.token_id("<|vision_end|>")
    assert len(marked) == 66


@torch.no_grad()
def test_padding_changes_no_text(model: Model) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    alone = read_texts(model, Texts(ids, torch.ones_like(ids, dtype=torch.bool)))
    padded = Texts(
        torch.nn.functional.pad(ids, (0, 5), value=9),
        torch.nn.functional.pad(torch.ones_like(ids, dtype=torch.bool), (0, 5), value=False),
    )
    torch.testing.assert_close(read_texts(model, padded).mean(), alone.mean(), atol=1e-6, rtol=1e-5)


def test_training_sees_the_pixels_that_serving_sees(pages: list[Image.Image]) -> None:
    spec = ImageSpec(
        patch_size=shapes.PATCH,
        merge_size=2,
        min_pixels=shapes.MIN_PIXELS,
        max_pixels=shapes.MAX_PIXELS,
        max_aspect_ratio=200,
    )
    served = served_patches(pages[0], Grid(16, 16), spec).values.numpy()
    one_frame = served.reshape(256, 3, 2, 14, 14)[:, :, 0].astype(np.float32) / 255
    mean, std = (np.array(part, dtype=np.float32).reshape(1, 3, 1, 1) for part in (MEAN, STD))
    expected = ((one_frame - mean) / std).reshape(256, -1)
    np.testing.assert_allclose(
        patches_of(pixels_of(pages[:1], 224))[0].numpy(), expected, atol=1e-6
    )
