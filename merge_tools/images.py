"""How images are cut into patches and bounded in size, as the base's processor files say it.

    processor_config.json: image_processor    what transformers 5 saves, and reads first
    preprocessor_config.json                  what older versions save

Deliberately reads no pixel and no other setting.
"""

from dataclasses import dataclass
from pathlib import Path

from merge_tools.base_config import BaseConfig
from merge_tools.jsonfile import JsonObject, read_json_object

__all__ = [
    "IMAGE_PROCESSOR",
    "PREPROCESSOR_FILE",
    "PROCESSOR_FILE",
    "ImageSettings",
    "image_processor_of",
    "read_image_settings",
]

PREPROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"
IMAGE_PROCESSOR = "image_processor"

# What Qwen2VLImageProcessor assumes when the file does not say.
_MIN_PIXELS = 3136
_MAX_PIXELS = 12_845_056


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """How images are cut into patches and bounded in size."""

    patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int


def image_processor_of(root: Path) -> JsonObject | None:
    """The image processor's settings, from the file that transformers would take; None without.

    Raises:
        SourceError: the file is malformed.
    """
    if (root / PROCESSOR_FILE).is_file():
        nested = read_json_object(root / PROCESSOR_FILE).optional_nested(IMAGE_PROCESSOR)
        if nested is not None:
            return nested
    path = root / PREPROCESSOR_FILE
    return read_json_object(path) if path.is_file() else None


def read_image_settings(root: Path, config: BaseConfig) -> tuple[ImageSettings, tuple[str, ...]]:
    """The settings, and a note on what no file says.

    Raises:
        SourceError: a processor file is malformed.
    """
    file = image_processor_of(root)
    notes: list[str] = []
    if file is None:
        notes.append(
            f"The base has neither {PREPROCESSOR_FILE} nor an {IMAGE_PROCESSOR} in "
            f"{PROCESSOR_FILE}; pixel bounds are Qwen2.5-VL's own."
        )
        file = JsonObject(str(root), {})
    size = file.optional_nested("size") or JsonObject(file.where, {})
    missing = [
        name
        for name, other in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge"))
        if name not in file and other not in size
    ]
    if missing and not notes:
        notes.append(f"{file.where} lacks {' and '.join(missing)}: taken are Qwen2.5-VL's own.")
    settings = ImageSettings(
        patch_size=file.integer("patch_size", config.vision.patch),
        merge_size=file.integer("merge_size", config.vision.spatial_merge),
        min_pixels=file.integer("min_pixels", size.integer("shortest_edge", _MIN_PIXELS)),
        max_pixels=file.integer("max_pixels", size.integer("longest_edge", _MAX_PIXELS)),
    )
    return settings, tuple(notes)
