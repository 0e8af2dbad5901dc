"""A JSON object from a file, read with checked types and by name.

Keeps untyped dictionaries out of the rest of the package. Deliberately knows no field of any file.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from merge_tools.errors import MergeToolsError, SourceError

__all__ = ["JsonObject", "read_json_object", "without_duplicates"]


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object and where it came from; a missing field and null are the same: absent."""

    where: str
    values: Mapping[str, object]
    error: type[MergeToolsError] = SourceError

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def raw(self, name: str) -> object:
        """The value as parsed, None when absent."""
        return self.values.get(name)

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number; without a default the field is required."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, "a whole number", value)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number; without a default the field is required."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number", value)
        return float(value)

    def text(self, name: str, default: str | None = None) -> str:
        """A string; without a default the field is required."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        return value

    def optional_text(self, name: str) -> str | None:
        """A string or None."""
        return self.text(name) if name in self else None

    def boolean(self, name: str, *, default: bool | None = None) -> bool:
        """True or false; without a default the field is required."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; absent is empty."""
        value = self._value(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of strings", value)
        return tuple(value)

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers; absent is empty."""
        value = self._value(name, [])
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise self._wrong(name, "a list of whole numbers", value)
        return tuple(value)

    def nested(self, name: str) -> "JsonObject":
        """A nested object, required."""
        value = self._value(name, None)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object", value)
        return JsonObject(f"{self.where}: {name}", value, self.error)

    def optional_nested(self, name: str) -> "JsonObject | None":
        """A nested object or None."""
        return self.nested(name) if name in self else None

    def _value(self, name: str, default: object) -> object:
        value = self.values.get(name)
        if value is not None:
            return value
        if default is None:
            raise self.error(f"{self.where} lacks the field {name!r}, which is required.")
        return default

    def _wrong(self, name: str, expected: str, value: object) -> MergeToolsError:
        return self.error(f"{name!r} in {self.where} must be {expected}, got {value!r:.80}.")


def read_json_object(path: Path, *, error: type[MergeToolsError] = SourceError) -> JsonObject:
    """Reads a file that holds one JSON object.

    Raises:
        MergeToolsError: of the given class, when the file is missing, unreadable or no object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"{path} cannot be read: {cause}.") from cause
    try:
        parsed = json.loads(text, object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as cause:
        raise error(f"{path} is not valid JSON ({cause}). Fetch the file again.") from cause
    if not isinstance(parsed, dict):
        raise error(f"{path} must hold a JSON object, got {type(parsed).__name__}.")
    return JsonObject(str(path), parsed, error)


def without_duplicates(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Python keeps the last of two equal keys without a word; a checkpoint must not have them."""
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} occurs twice")
        result[key] = value
    return result
