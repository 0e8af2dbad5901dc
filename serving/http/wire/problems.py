"""Several wrong fields as one answer, and one wrong field not hiding the others.

It does not know what fields there are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from serving.http.errors import FieldError, HttpError

MAX_FIELD_ERRORS = 10
"""What one answer lists; whoever has more finds the rest when these are gone."""

Read = TypeVar("Read")


def invalid_all(errors: Sequence[FieldError]) -> HttpError:
    """422 for all of `errors`, at least one; the first is the detail."""
    shown = tuple(errors[:MAX_FIELD_ERRORS])
    first = shown[0]
    more = f" ({len(shown) - 1} more in errors)" if len(shown) > 1 else ""
    return HttpError(
        422,
        "VALIDATION_ERROR",
        f"{first.field}: {first.message}{more}",
        field_errors=shown,
    )


def attempt(read: Callable[[], Read], errors: list[FieldError]) -> Read | None:
    """What `read` returns; or None, with what was wrong added to `errors`."""
    try:
        return read()
    except HttpError as error:
        errors.extend(error.field_errors)
        return None


def attempt_given(
    document: Mapping[str, object],
    field: str,
    read: Callable[[object, str], tuple[Read, ...]],
    errors: list[FieldError],
) -> tuple[Read, ...] | None:
    """As `attempt`, of one field of a document; nothing where it is absent, which is not an error here."""
    value = document.get(field)
    return () if value is None else attempt(lambda: read(value, field), errors)


def json_type(value: object) -> str:
    """What a JSON value is, with its article; says nothing of the value itself."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"
