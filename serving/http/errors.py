"""What the server answers when it does not answer with vectors: one error class, one table, one shape.

The shape is the public API's: `detail` always, `code`, `request_id`, for 422 `errors`, and OpenAI's
`error` object beside them. Knows the service's errors; not requests, routes or FastAPI.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from serving.errors import (
    CheckpointError,
    EngineError,
    ForeignInputError,
    InputError,
    NoVectorsError,
    QueueFullError,
    SettingsError,
    StoppingError,
    TaskError,
)

INVALID = "invalid_request_error"

_log = logging.getLogger(__name__)

# The engine quotes what it complains of, and names files.
_QUOTED = re.compile(r"""['"`<\[{/\\\n].*""", re.DOTALL)
_MAX_FOREIGN_CHARS = 200


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field of a body that is wrong; says nothing of the value itself.

    Attributes:
        field: where it is, as `input.3.image`.
        message: the rule, and what to do.
        kind: a short machine-readable name of the rule.
    """

    field: str
    message: str
    kind: str


class HttpError(Exception):
    """An answer that is not 200.

    Attributes:
        status: HTTP status.
        code: the public API's code, such as `RATE_TOKEN_LIMIT_EXCEEDED`.
        detail: the rule, what was got, and what to do; never an input's text, a path or a stack trace.
        field_errors: what is wrong with which field, for 422.
        retry_after_s: when to try again, for 429 and 503.
        headers: further headers.
        reason: what metrics count it as; finer than the public API's codes.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field_errors: tuple[FieldError, ...] = (),
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        reason: str | None = None,
        for_log: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field_errors = field_errors
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        self.reason = reason or code
        self.for_log = for_log


def invalid(field: str, message: str, kind: str = "value_error") -> HttpError:
    """422 for one field."""
    return HttpError(
        422,
        "VALIDATION_ERROR",
        f"{field}: {message}",
        field_errors=(FieldError(field, message, kind),),
    )


def invalid_input(field: str, error: InputError) -> HttpError:
    """422 for the input at `field`, or 500 if the engine is to blame; what it said is for the log only."""
    reason = error.reason
    if isinstance(error, NoVectorsError):
        return HttpError(
            500,
            "INTERNAL_ERROR",
            f"{field}: The engine has no vectors for this input; why is logged under the request_id of this "
            "answer. Other inputs are not affected: send them without it.",
            reason="NO_VECTORS",
            for_log=f"The engine has no vectors for an input: {reason}",
        )
    if isinstance(error, ForeignInputError):
        said = _QUOTED.sub("", reason).strip()[:_MAX_FOREIGN_CHARS]
        _log.warning("The engine refused an input: %s: %s", error.origin, said)
        reason = "The engine refused this input."
    return invalid(field, reason, "input_error")


def from_polyvec(error: Exception) -> HttpError | None:
    """A known error of the service as an answer; None for what nobody expected."""
    match error:
        case HttpError():
            return error
        case QueueFullError():
            return HttpError(
                503,
                "SERVICE_UNAVAILABLE",
                str(error),
                retry_after_s=error.retry_after_s,
                reason="QUEUE_FULL",
            )
        case StoppingError():
            return HttpError(503, "SERVICE_UNAVAILABLE", str(error), retry_after_s=5)
        case EngineError():
            # Its message may hold what vLLM printed.
            return HttpError(
                503,
                "SERVICE_UNAVAILABLE",
                "The engine of this task is starting or being restarted. Try again.",
                retry_after_s=5,
                reason="ENGINE_UNAVAILABLE",
            )
        case InputError():
            return invalid_input("input" if error.index is None else f"input.{error.index}", error)
        case TaskError():
            return invalid("body", str(error), "option_error")
        case CheckpointError() | SettingsError():
            return None
        case _:
            return None


def unexpected() -> HttpError:
    """500; what happened is in the log, under the request's id."""
    return HttpError(
        500,
        "INTERNAL_ERROR",
        "Something went wrong in the server; it is logged under the request_id of this answer.",
    )


_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "server_error",
}


def body_of(error: HttpError, request_id: str) -> bytes:
    """The JSON body of `error`."""
    document: dict[str, object] = {
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
        "error": {
            "message": error.detail,
            "type": _OPENAI_TYPES.get(error.status, INVALID),
            "param": error.field_errors[0].field if error.field_errors else None,
            "code": error.code,
        },
    }
    if error.status == 422:
        # `input` is part of the contract's shape, and is never echoed: it may be anything.
        document["errors"] = [
            {"field": item.field, "message": item.message, "type": item.kind, "input": None}
            for item in error.field_errors
        ]
    return orjson.dumps(document)
