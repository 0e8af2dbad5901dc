"""Decode one image within bounds, and count the tokens it becomes.

Pixels are those of the model's own loader: Pillow's decoding of the first frame, converted to RGB, no
rotation by EXIF. Resizing belongs to the engine's processor. Fetches nothing.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from serving.errors import InputError
from serving.inputs import ImageSource, shortened
from serving.manifest import ImageSpec

# Pillow reads a lazily opened image when it is first used, and two threads at once spoil it: the same
# image object may stand in one list several times.
_LOCKS = [threading.Lock() for _ in range(64)]

# Converting these to RGB clips every value above 255: a scan of 16 bits turns white.
_WIDE_MODES = ("I", "F")

# A photo of these formats may carry further pictures, such as a preview: the first one is the photo.
_STILL_FORMATS = ("MPO", "ICO", "ICNS")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What may be decoded.

    Attributes:
        max_bytes: of the encoded file.
        max_decoded_pixels: before resizing.
        max_aspect_ratio: of the longer edge to the shorter.
        one_frame: refuse animations and files of several pages, of which only the first frame would count.
    """

    max_bytes: int
    max_decoded_pixels: int
    max_aspect_ratio: float
    one_frame: bool = False


def decode_image(source: ImageSource, limits: ImageLimits) -> Image.Image:
    """Decode `source` to an RGB image; size and aspect ratio are checked before pixels are decoded.

    Raises:
        InputError: the file is missing, too large, no image, truncated, or of a shape that is refused.
    """
    name = _name(source)
    with _errors_named(name):
        image = _open(source, name, limits)
        _check_shape(image, name, limits)
        with _LOCKS[id(image) % len(_LOCKS)]:
            image.load()
        return image.convert("RGB")


def measure_image(source: ImageSource, limits: ImageLimits) -> tuple[int, int]:
    """Width and height in pixels, read from the header; everything that needs no pixels is checked.

    Raises:
        InputError: the file is missing, too large, no image, or of a shape that is refused.
    """
    name = _name(source)
    with _errors_named(name):
        image = _open(source, name, limits)
        _check_shape(image, name, limits)
        return image.size


def _name(source: ImageSource) -> str:
    return shortened(str(source)) if isinstance(source, Path) else "the image"


@contextmanager
def _errors_named(name: str) -> Iterator[None]:
    """Pillow's errors as `InputError`."""
    try:
        with warnings.catch_warnings():
            # The bound of `ImageLimits` replaces Pillow's warning, which would only be printed.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is refused as a decompression bomb: {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name} is not an image in a format that Pillow can read (PNG, JPEG, WebP, TIFF, ...)."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # Pillow's decoders raise all four for damaged files.
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{name} cannot be decoded; it is damaged or truncated ({error})."
        ) from error


def _open(source: ImageSource, name: str, limits: ImageLimits) -> Image.Image:
    match source:
        case Image.Image():
            return source
        case bytes():
            if len(source) > limits.max_bytes:
                raise InputError(
                    f"{name} has {len(source)} bytes; at most {limits.max_bytes} are read."
                )
            return Image.open(io.BytesIO(source))
        case Path():
            try:
                num_bytes = source.stat().st_size
            except OSError as error:
                raise InputError(f"{name} cannot be read ({error.strerror}).") from error
            if source.is_dir():
                raise InputError(f"{name} is a directory. Pass the images in it one by one.")
            if num_bytes > limits.max_bytes:
                raise InputError(
                    f"{name} has {num_bytes} bytes; at most {limits.max_bytes} are read."
                )
            return Image.open(source)


def _check_shape(image: Image.Image, name: str, limits: ImageLimits) -> None:
    width, height = image.size
    if image.mode.startswith(_WIDE_MODES):
        raise InputError(
            f"{name} has pixels of mode {image.mode}, wider than 8 bits. Scale them to 8 bits first."
        )
    if min(width, height) == 0:
        raise InputError(f"{name} is empty ({width} x {height} pixels).")
    if width * height > limits.max_decoded_pixels:
        raise InputError(
            f"{name} has {width} x {height} pixels; at most {limits.max_decoded_pixels} are decoded."
        )
    if limits.one_frame and image.format not in _STILL_FORMATS:
        num_frames = getattr(image, "n_frames", 1)
        if num_frames > 1:
            raise InputError(
                f"{name} has {num_frames} frames or pages; one image is one frame. "
                "Send its frames one by one, or a document as PDF."
            )
    ratio = max(width, height) / min(width, height)
    if ratio > limits.max_aspect_ratio:
        raise InputError(
            f"{name} has {width} x {height} pixels, an aspect ratio of {ratio:.1f}; "
            f"the model takes at most {limits.max_aspect_ratio:g}. Crop it or cut it into pieces."
        )


def count_image_tokens(width: int, height: int, max_pixels: int, spec: ImageSpec) -> int:
    """Image tokens of a picture of `width` x `height` pixels, markers and template not counted.

    The model's own smart resize: edges to multiples of `spec.token_edge`, area within
    `spec.min_pixels` and `max_pixels`.
    """
    # Slow to import, and only needed once an image is there.
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    rows, columns = smart_resize(
        height, width, factor=spec.token_edge, min_pixels=spec.min_pixels, max_pixels=max_pixels
    )
    return int(rows // spec.token_edge) * int(columns // spec.token_edge)
