"""Which body the caller wants to have back, going by its `Accept` header.

JSON unless raw values are asked for by name. It does not know whether what was asked for fits the call
(`octets`), nor other media types.
"""

import re
from dataclasses import dataclass

from pooling import VectorFormat
from serving.http.errors import HttpError


@dataclass(frozen=True, slots=True)
class Json:
    """`application/json`."""


@dataclass(frozen=True, slots=True)
class Octets:
    """`application/octet-stream`: a safetensors file with values in this format."""

    vector_format: VectorFormat


Output = Json | Octets

OCTETS_TYPE = "application/octet-stream"

_JSON_RANGES = ("application/json", "application/*", "*/*")
"""What JSON satisfies; of several, the most specific says how much it is wanted."""

_QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


@dataclass(frozen=True, slots=True)
class _Range:
    media_type: str
    quality: float
    dtype: str | None


def negotiate(accept: str | None) -> Output:
    """JSON, or the values that `accept` asks for, as `application/octet-stream; dtype=fp16`.

    A wildcard, no header, or only types that nobody knows give JSON. Of JSON and octets, both named, the
    one with the higher `q` is taken, then the one named first.

    Raises:
        HttpError: 406; a dtype that does not exist.
    """
    ranges = [_range(part) for part in (accept or "").split(",")]
    wanted = [item for item in ranges if item.media_type == OCTETS_TYPE and item.quality > 0]
    if not wanted:
        return Json()
    octets = max(wanted, key=lambda item: item.quality)
    for media_type in _JSON_RANGES:
        named = [item for item in ranges if item.media_type == media_type]
        if named:
            json = max(named, key=lambda item: item.quality)
            first = media_type == _JSON_RANGES[0] and ranges.index(json) < ranges.index(octets)
            if json.quality > octets.quality or (json.quality == octets.quality and first):
                return Json()
            break
    return Octets(_vector_format(octets.dtype))


def _range(text: str) -> _Range:
    media_type, *parameters = (part.strip().lower() for part in text.split(";"))
    quality, dtype = 1.0, None
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        value = value.strip().strip('"')
        match name.strip():
            case "q":
                # What is not a quality does not say that the type is wanted.
                quality = float(value) if _QUALITY.fullmatch(value) else 0.0
            case "dtype":
                dtype = value
    return _Range(media_type, quality, dtype)


def _vector_format(dtype: str | None) -> VectorFormat:
    if dtype is None:
        return VectorFormat.FP32
    try:
        return VectorFormat(dtype)
    except ValueError:
        names = ", ".join(format_.value for format_ in VectorFormat)
        raise HttpError(
            406,
            "NOT_ACCEPTABLE",
            f"The dtype of {OCTETS_TYPE} is one of {names}; the Accept header has another.",
        ) from None
