"""Decode one image within bounds, and count the tokens it becomes.

Pixels are those of the model's own loader: Pillow's decoding of the first frame, converted to RGB, no
rotation by EXIF. Says what size the model resizes to; resizing is the engine's. Fetches nothing.
"""

import io
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from serving.documents.regular_file import read_regular_file
from serving.errors import InputError
from serving.inputs import ImageSource, shortened
from serving.manifest import ImageSpec

# Pillow reads a lazily opened image when it is first used, and two threads at once spoil it: the same
# image object may stand in one list several times.
_LOCKS = [threading.Lock() for _ in range(64)]

# Converting these to RGB clips every value above 255: a scan of 16 bits turns white.
_WIDE_MODES = ("I", "F")

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What files are read as. Pillow knows many more, among them formats that are handed to other programs
(EPS), parsed in plain Python, or seldom tested; nobody sends them, except to find out."""

# A photo of this format carries further pictures, such as a preview: the first one is the photo.
_STILL_FORMAT = "MPO"

# A progressive JPEG may go over its whole area as often as it likes, for ten bytes each time: megabytes of
# that keep a processor busy for an hour. Encoders write about ten scans; the two bytes that begin one may
# also stand in metadata, by chance once in 65,536 bytes.
_MAX_JPEG_SCANS = 500
_JPEG_START = b"\xff\xd8"
_JPEG_SCAN = b"\xff\xda"

# What Pillow raises for damaged files, from plugins in Python and from decoders in C. A damaged header may
# ask for any amount of memory.
_DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


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
        # Converting would copy what is RGB already.
        return image if image.mode == "RGB" else image.convert("RGB")


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
            # `ImageLimits` bounds pixels; what else Pillow finds odd about a file helps nobody in a log.
            warnings.simplefilter("ignore")
            yield
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is refused as a decompression bomb: {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name} is not an image in a format that is read here: {', '.join(FORMATS)}."
        ) from error
    except _DAMAGE as error:
        if isinstance(error, InputError):
            raise
        # Pillow's own words may quote the file.
        raise InputError(f"{name} cannot be decoded; it is damaged or truncated.") from error


def _open(source: ImageSource, name: str, limits: ImageLimits) -> Image.Image:
    match source:
        case Image.Image():
            return source
        case bytes():
            if len(source) > limits.max_bytes:
                raise InputError(
                    f"{name} has {len(source)} bytes; at most {limits.max_bytes} are read."
                )
            return _opened(source, name)
        case Path():
            return _opened(read_regular_file(source, limits.max_bytes, name), name)


def _opened(data: bytes, name: str) -> Image.Image:
    if data.startswith(_JPEG_START) and data.count(_JPEG_SCAN) > _MAX_JPEG_SCANS:
        raise InputError(
            f"{name} is a JPEG of more than {_MAX_JPEG_SCANS} scans; at most as many are decoded. "
            "Encode it again."
        )
    return Image.open(io.BytesIO(data), formats=FORMATS)


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
    # Counting frames may take minutes, where asking for a second one takes none.
    if limits.one_frame and image.format != _STILL_FORMAT and getattr(image, "is_animated", False):
        raise InputError(
            f"{name} has several frames or pages; one image is one frame. "
            "Send its frames one by one, or a document as PDF."
        )
    ratio = max(width, height) / min(width, height)
    if ratio > limits.max_aspect_ratio:
        raise InputError(
            f"{name} has {width} x {height} pixels, an aspect ratio of {ratio:.1f}; "
            f"the model takes at most {limits.max_aspect_ratio:g}. Crop it or cut it into pieces."
        )


def preload() -> None:
    """Import what vLLM's own preparation of a first image needs, which takes seconds."""
    from transformers.models.qwen2_vl import image_processing_qwen2_vl  # noqa: F401


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """How the image tokens of a picture lie on it: row by row, from its upper left corner, over all of it."""

    rows: int
    columns: int

    @property
    def num_tokens(self) -> int:
        """Image tokens, one a patch."""
        return self.rows * self.columns


def patch_grid(width: int, height: int, max_pixels: int, spec: ImageSpec) -> PatchGrid:
    """The grid of a picture of `width` x `height` pixels.

    Area within `spec.min_pixels` and `max_pixels`, see `smart_resize`.
    """
    edge = spec.token_edge
    rows, columns = smart_resize(
        width, height, edge=edge, min_pixels=spec.min_pixels, max_pixels=max_pixels
    )
    return PatchGrid(rows // edge, columns // edge)


def count_image_tokens(width: int, height: int, max_pixels: int, spec: ImageSpec) -> int:
    """Image tokens of a picture of `width` x `height` pixels, markers and template not counted."""
    return patch_grid(width, height, max_pixels, spec).num_tokens


def smart_resize(
    width: int, height: int, *, edge: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Height and width to which the model resizes a picture of `width` x `height` pixels.

    Multiples of `edge`, of nearly the same aspect ratio, with an area from `min_pixels` to `max_pixels`.
    Source: `smart_resize` of Qwen2-VL's image processor in transformers, which takes seconds to import in
    every process that prepares images.
    """
    rows, columns = round(height / edge) * edge, round(width / edge) * edge
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(edge, math.floor(height / shrink / edge) * edge)
        columns = max(edge, math.floor(width / shrink / edge) * edge)
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / edge) * edge
        columns = math.ceil(width * grow / edge) * edge
    return rows, columns
