"""Bytes to a JSON object to a checked body; whatever is wrong becomes a 422 that shows no value.

It does not know which body, nor what inputs are.
"""

import re
from typing import TypeVar

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

# A string that does not end is one to the end; anything else would look for its end again and again.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def json_object(body: bytes) -> JsonObject:
    """The object that `body` holds; of keys that stand twice, the last counts.

    Raises:
        HttpError: 422; the body is not JSON (RFC 8259: UTF-8, no NaN), not an object, or of too many parts.
    """
    if not body:
        raise invalid("body", "The body is empty. Send a JSON object.", "json_invalid")
    # Nearly always the first count, which is quick, says enough.
    if _brackets(body) > MAX_CONTAINERS and _brackets(_STRING.sub(b"", body)) > MAX_CONTAINERS:
        raise invalid(
            "body",
            f"The body has more than {MAX_CONTAINERS} lists and objects. Send fewer inputs at once.",
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


def _brackets(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")


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
