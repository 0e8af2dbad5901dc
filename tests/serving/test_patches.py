"""Patches are the reference processor's, value by value."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nanoarrow import c_array
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from serving.engine.bounds import PromptBounds
from serving.engine.imaging.patches import can_cut, grid_of, keep_whole, patches_of
from serving.engine.imaging.preparing import Job, Rules, prepare
from serving.errors import InputError
from serving.images import ImageLimits
from serving.manifest import ImageSpec, read_manifest
from tests.paths import GOLDEN_CHECKPOINT

SIZES = [
    (1275, 1650),
    (1700, 2200),
    (28, 28),
    (29, 27),
    (10, 10),
    (1, 1),
    (3000, 30),
    (56, 9000),
    (224, 224),
    (771, 513),
    (640, 480),
    (2480, 3508),
]


@pytest.fixture(scope="module")
def processor(merged_float32: Path) -> Qwen2VLImageProcessor:
    loaded = Qwen2VLImageProcessor.from_pretrained(merged_float32 / "retrieval")
    assert isinstance(loaded, Qwen2VLImageProcessor)
    return loaded


@pytest.fixture(scope="module")
def spec(merged_float32: Path) -> ImageSpec:
    return read_manifest(merged_float32 / "retrieval").image


def noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width + height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def assert_equal_to_reference(
    image: Image.Image,
    processor: Qwen2VLImageProcessor,
    spec: ImageSpec,
    min_pixels: int,
    max_pixels: int,
) -> None:
    size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    raw = processor(
        images=[image], size=size, do_rescale=False, do_normalize=False, return_tensors="pt"
    )
    grid = grid_of(*image.size, min_pixels=min_pixels, max_pixels=max_pixels, spec=spec)
    ours = patches_of(image.convert("RGB"), grid, spec)
    assert raw["image_grid_thw"].tolist() == [[1, grid.rows, grid.columns]]
    assert ours.values.dtype == raw["pixel_values"].dtype == torch.uint8
    assert torch.equal(ours.values, raw["pixel_values"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("max_pixels", [602_112, 56 * 56 * 4])
def test_patches_are_the_reference_processors(
    processor: Qwen2VLImageProcessor, spec: ImageSpec, size: tuple[int, int], max_pixels: int
) -> None:
    assert_equal_to_reference(noise(*size), processor, spec, spec.min_pixels, max_pixels)


@pytest.mark.parametrize(
    "path", sorted((GOLDEN_CHECKPOINT / "golden").glob("image_*.png")), ids=lambda path: path.name
)
def test_patches_of_golden_images(
    processor: Qwen2VLImageProcessor, spec: ImageSpec, path: Path
) -> None:
    image = Image.open(path)
    assert_equal_to_reference(image, processor, spec, spec.min_pixels, spec.max_pixels)


def test_a_config_that_asks_for_other_pixels_is_left_to_vllm(
    merged_float32: Path, tmp_path: Path
) -> None:
    spec = read_manifest(merged_float32 / "retrieval").image
    assert can_cut(merged_float32 / "retrieval", spec)
    path = tmp_path / "preprocessor_config.json"
    config = json.loads((merged_float32 / "retrieval" / path.name).read_text(encoding="utf-8"))
    assert not can_cut(tmp_path, spec)
    for name, value in (
        ("resample", 2),
        ("do_resize", False),
        ("temporal_patch_size", 1),
        ("patch_size", 16),
        ("merge_size", 1),
    ):
        path.write_text(json.dumps(config | {name: value}), encoding="utf-8")
        assert not can_cut(tmp_path, spec)
    path.write_text("[]", encoding="utf-8")
    assert not can_cut(tmp_path, spec)
    path.write_text(json.dumps(config), encoding="utf-8")
    assert can_cut(tmp_path, spec)
    # transformers 5 looks here first.
    shared = tmp_path / "processor_config.json"
    shared.write_text(json.dumps({"image_processor": config | {"resample": 2}}), encoding="utf-8")
    assert not can_cut(tmp_path, spec)
    shared.write_text(json.dumps({"image_processor": config}), encoding="utf-8")
    assert can_cut(tmp_path, spec)
    shared.write_text(json.dumps({"image_processor": None}), encoding="utf-8")
    assert not can_cut(tmp_path, spec)


def test_an_image_of_too_many_tokens_is_refused_before_it_is_resized(spec: ImageSpec) -> None:
    limits = ImageLimits(max_bytes=10**6, max_decoded_pixels=10**7, max_aspect_ratio=200)
    job = Job(noise(280, 280), spec.min_pixels, spec.max_pixels, template_tokens=8)
    assert len(prepare(job, Rules(spec, limits, PromptBounds(107, 100, 1000))).values) == 400
    with pytest.raises(InputError, match="becomes 100 tokens"):
        prepare(job, Rules(spec, limits, PromptBounds(107, 99, 1000)))
    with pytest.raises(InputError, match="has 107 tokens"):
        prepare(job, Rules(spec, limits, PromptBounds(106, 100, 1000)))


def test_an_image_in_several_blocks_and_one_that_is_kept_whole_are_the_same(
    spec: ImageSpec,
) -> None:
    width, height = 2480, 3508
    grid = grid_of(width, height, min_pixels=3136, max_pixels=602112, spec=spec)
    in_blocks = noise(width, height)
    with pytest.raises(ValueError, match="not contiguous"):
        c_array(in_blocks)
    block_size = Image.core.get_block_size()
    keep_whole(width * height)
    try:
        whole = noise(width, height)
    finally:
        Image.core.set_block_size(block_size)
    c_array(whole)
    assert torch.equal(
        patches_of(whole, grid, spec).values, patches_of(in_blocks, grid, spec).values
    )


def test_the_image_is_left_as_it_was(spec: ImageSpec) -> None:
    image = noise(280, 280)
    before = image.tobytes()
    grid = grid_of(280, 280, min_pixels=3136, max_pixels=602112, spec=spec)
    patches_of(image, grid, spec).values.fill_(0)
    assert image.tobytes() == before
