"""Bytes to a JSON object to a checked body; whatever is wrong becomes a 422 that shows no value.

It does not know which body, nor what inputs are.
"""

from typing import TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from serving.http.errors import FieldError, invalid
from serving.http.wire.problems import invalid_all, json_type

Body = TypeVar("Body", bound=BaseModel)
JsonObject = dict[str, object]

MAX_CONTAINERS = 128 * 1024
"""Lists and objects of one body, several times what the most inputs need. A megabyte of `[],` is hundreds
of thousands, which take the parser, and every other request with it, seconds, and gigabytes."""

MAX_VALUES = 2 * 1024 * 1024
"""Commas of one body outside strings: numbers nobody asked for, or more token ids than 256 texts of 8192."""

_BLOCK_BYTES = 1024 * 1024
_QUOTE, _COMMA, _LIST, _OBJECT = b'",[{'


def json_object(body: bytes) -> JsonObject:
    """The object that `body` holds; of keys that stand twice, the last counts.

    Raises:
        HttpError: 422; the body is not JSON (RFC 8259: UTF-8, no NaN), not an object, or of too many parts.
    """
    if not body:
        raise invalid("body", "The body is empty. Send a JSON object.", "json_invalid")
    # Nearly always the first count, which is quick, says enough.
    if _is_crowded(body) and _is_crowded(_outside_strings(body)):
        raise invalid(
            "body",
            f"The body has more than {MAX_CONTAINERS} lists and objects, or {MAX_VALUES} values. "
            "Send fewer inputs at once.",
            "too_many_values",
        )
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # `error.msg` names the rule and never quotes the text.
        raise invalid(
            "body",
            f"The body is not valid JSON: {error.msg}, at line {error.lineno} column {error.colno}.",
            "json_invalid",
        ) from None
    if not isinstance(document, dict):
        raise invalid(
            "body", f"The body should be a JSON object, got {json_type(document)}.", "model_type"
        )
    return document


def _outside_strings(body: bytes) -> bytes:
    """The brackets and commas that are no text; of the worst body in the time of any of its size."""
    # Left to right, so that an escaped backslash escapes no quote.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    found: list[bytes] = []
    is_inside = False
    for start in range(0, len(plain), _BLOCK_BYTES):
        block = np.frombuffer(plain[start : start + _BLOCK_BYTES], np.uint8)
        inside = np.logical_xor.accumulate(block == _QUOTE) ^ is_inside
        is_inside = bool(inside[-1])
        marks = (block == _COMMA) | (block == _LIST) | (block == _OBJECT)
        found.append(block[marks & ~inside].tobytes())
    return b"".join(found)


def _is_crowded(body: bytes) -> bool:
    return body.count(b"[") + body.count(b"{") > MAX_CONTAINERS or body.count(b",") > MAX_VALUES


def checked(model: type[Body], document: JsonObject) -> Body:
    """`document` as `model`.

    Raises:
        HttpError: 422; names every field that is wrong.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise invalid_all(
            [_field_error(item) for item in error.errors(include_url=False, include_context=False)]
        ) from None


def _field_error(item: ErrorDetails) -> FieldError:
    got = f", got {json_type(item['input'])}" if item["type"].endswith("_type") else ""
    field = ".".join(str(part) for part in item["loc"])
    return FieldError(field, f"{item['msg']}{got}.", item["type"])
