import io
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from serving import InputError
from serving.images import (
    FORMATS,
    ImageLimits,
    count_image_tokens,
    decode_image,
    measure_image,
    patch_grid,
    smart_resize,
)
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
            grid = patch_grid(*image.size, SPEC.max_pixels, SPEC)
        assert counted == rows * columns // SPEC.merge_size**2
        assert (grid.rows, grid.columns) == (rows // SPEC.merge_size, columns // SPEC.merge_size)


def test_one_lazily_opened_image_can_be_decoded_by_many_threads(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            lazy = Image.open(path)
            decoded = list(pool.map(lambda image: decode_image(image, LIMITS), [lazy] * 8))
            assert all(np.array_equal(np.asarray(image), pixels) for image in decoded)


def framed(kind: str, num_frames: int) -> bytes:
    file = io.BytesIO()
    first, *others = [Image.effect_noise((8, 8), 90).convert("RGB") for _ in range(num_frames)]
    first.save(file, kind, save_all=True, append_images=others)
    return file.getvalue()


ONE_FRAME = replace(LIMITS, one_frame=True)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_second_frame_or_page_is_refused_where_one_is_asked_for(kind: str) -> None:
    with pytest.raises(InputError, match="several frames or pages"):
        measure_image(framed(kind, 2), ONE_FRAME)
    assert measure_image(framed(kind, 1), ONE_FRAME) == (8, 8)


def test_a_photo_with_a_preview_is_one_image() -> None:
    assert measure_image(framed("MPO", 2), ONE_FRAME) == (8, 8)


def pages(num_pages: int) -> bytes:
    """A TIFF of that many pages, as small as they can be."""
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: 1}
    body = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags.items())
    page = struct.pack("<H", len(tags)) + body
    offsets = [8 + (len(page) + 4) * number for number in range(1, num_pages)]
    return b"II*\0\x08\0\0\0" + b"".join(page + struct.pack("<I", at) for at in [*offsets, 0])


def test_pages_are_not_counted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[int] = []
    seek = TiffImageFile._seek

    def counted(image: TiffImageFile, frame: int) -> None:
        moves.append(frame)
        seek(image, frame)

    monkeypatch.setattr(TiffImageFile, "_seek", counted)
    with pytest.raises(InputError, match="several frames or pages"):
        measure_image(pages(700), ONE_FRAME)
    assert 0 < len(moves) < 10


@pytest.mark.parametrize("kind", ["EPS", "ICO", "ICNS", "PPM", "TGA", "PCX", "JPEG2000", "XBM"])
def test_formats_that_nobody_sends_are_no_images(kind: str) -> None:
    image = Image.new("1" if kind == "XBM" else "RGB", (16, 16))
    with pytest.raises(InputError, match="not an image in a format that is read here: PNG, JPEG"):
        decode_image(encoded(image, kind), LIMITS)


def test_a_jpeg_that_repeats_its_area_without_end_is_refused_before_it_is_decoded() -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    at = whole.rindex(b"\xff\xda")
    scan = whole[at : at + 2 + int.from_bytes(whole[at + 2 : at + 4], "big")]
    assert decode_image(whole[:-2] + scan * 50 + whole[-2:], LIMITS).size == (64, 64)
    with pytest.raises(InputError, match="more than 500 scans"):
        decode_image(whole[:-2] + scan * 501 + whole[-2:], LIMITS)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_damaged_file_is_refused_as_one(kind: str) -> None:
    whole = encoded(Image.effect_noise((24, 24), 90).convert("RGB"), kind)
    random = Random(0)
    num_refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(random.choice((1, 2, 8))):
            damaged[random.randrange(len(damaged))] = random.choice((0, 1, 127, 128, 255))
        del damaged[random.choice((len(damaged), random.randrange(len(damaged)))) :]
        try:
            decode_image(bytes(damaged), LIMITS)
        except InputError:
            num_refused += 1
    assert num_refused > 30


def test_pictures_are_resized_as_the_model_does() -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as reference

    draw = Random(0)
    bounds = [(3136, 602_112), (1, 784), (3136, 3136), (100_000, 16_777_216)]
    for _ in range(3000):
        width, height = (int(10 ** draw.uniform(0, 4.3)) for _ in range(2))
        if max(width, height) / min(width, height) > 200:
            continue
        min_pixels, max_pixels = draw.choice(bounds)
        assert smart_resize(
            width, height, edge=28, min_pixels=min_pixels, max_pixels=max_pixels
        ) == reference(height, width, factor=28, min_pixels=min_pixels, max_pixels=max_pixels)
