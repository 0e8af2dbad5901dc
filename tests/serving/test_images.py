import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving import InputError
from serving.images import ImageLimits, count_image_tokens, decode_image
from serving.inputs import ImageSource
from serving.manifest import ImageSpec
from tests.conftest import Golden

LIMITS = ImageLimits(max_bytes=100_000, max_decoded_pixels=1_000_000, max_aspect_ratio=200)
SPEC = ImageSpec(
    patch_size=14, merge_size=2, min_pixels=3136, max_pixels=602_112, max_aspect_ratio=200
)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_path_bytes_and_pil_decode_to_the_same_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    path = tmp_path / "a.png"
    image.save(path)
    for source in (image, path, path.read_bytes()):
        assert np.array_equal(np.asarray(decode_image(source, LIMITS)), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert decode_image(Image.new(mode, (5, 5)), LIMITS).mode == "RGB"


def test_an_animation_gives_its_first_frame() -> None:
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(file.getvalue(), LIMITS).getpixel((0, 0)) == (255, 0, 0)


TOO_LONG = Image.new("RGB", (201, 1))
WHOLE = encoded(Image.effect_noise((64, 64), 100))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (Path("/nowhere/a.png"), "/nowhere/a.png cannot be read"),
        (Path("/"), "is a directory"),
        (b"", "not an image"),
        (b"GIF89a", "damaged or truncated|not an image"),
        (b"%PDF-1.7", "not an image"),
        (WHOLE[: len(WHOLE) // 2], "damaged or truncated"),
        (bytes(100_001), "has 100001 bytes; at most 100000"),
        (encoded(Image.new("1", (1001, 1000))), "1001 x 1000 pixels; at most 1000000"),
        (encoded(TOO_LONG), "aspect ratio of 201.0"),
        (TOO_LONG, "aspect ratio of 201.0"),
        (Image.new("RGB", (0, 5)), "is empty"),
        (Image.new("I;16", (5, 5)), "mode I;16, wider than 8 bits"),
        (Image.new("F", (5, 5)), "mode F, wider than 8 bits"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(source: ImageSource, says: str) -> None:
    with pytest.raises(InputError, match=says):
        decode_image(source, LIMITS)


def test_a_gigapixel_in_a_small_file_is_refused_before_it_is_decoded() -> None:
    bomb = encoded(Image.new("1", (30_000, 30_000)))
    assert len(bomb) < 200_000
    limits = ImageLimits(max_bytes=200_000, max_decoded_pixels=178_956_970, max_aspect_ratio=200)
    with pytest.raises(InputError, match=r"30000 x 30000 pixels|decompression bomb"):
        decode_image(bomb, limits)


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [(224, 224, 64), (1024, 1024, 729), (1700, 2200, 744), (30, 30, 4), (1, 1, 4)],
)
def test_token_counts_are_the_models(width: int, height: int, tokens: int) -> None:
    assert count_image_tokens(width, height, SPEC.max_pixels, SPEC) == tokens


def test_token_counts_agree_with_the_golden_grids(golden: Golden) -> None:
    assert golden.images
    for index, path in enumerate(golden.images):
        _, rows, columns = golden.arrays[f"code/image_{index}/grid"]
        with Image.open(path) as image:
            counted = count_image_tokens(*image.size, SPEC.max_pixels, SPEC)
        assert counted == rows * columns // SPEC.merge_size**2


def test_one_lazily_opened_image_can_be_decoded_by_many_threads(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            lazy = Image.open(path)
            decoded = list(pool.map(lambda image: decode_image(image, LIMITS), [lazy] * 8))
            assert all(np.array_equal(np.asarray(image), pixels) for image in decoded)
