"""vLLM's errors in polyvec's terms, in one table."""

from pooling import PoolingError
from serving.errors import (
    EngineDeadError,
    EngineError,
    ForeignInputError,
    InputError,
    NoVectorsError,
    PolyvecError,
)

# By class name along the error's ancestry, most specific first. Names, unlike classes, can be read
# without importing vLLM, and stand for the same thing in every release since 0.26.
_TABLE: dict[str, type[PolyvecError]] = {
    "EngineDeadError": EngineDeadError,
    "GracefulHTTPError": EngineError,
    "VLLMServerError": EngineError,
    "EngineGenerateError": EngineError,
    "VLLMNotFoundError": EngineError,
    "VLLMClientError": ForeignInputError,
    "VLLMValidationError": ForeignInputError,
    "VLLMError": EngineError,
    # What the engine computed is not the client's fault, and says nothing of the next prompt.
    "NonFiniteError": NoVectorsError,
    "PoolingError": InputError,
    "ValueError": ForeignInputError,
}


def foreign_errors() -> tuple[type[Exception], ...]:
    """What vLLM and pooling raise for a request; anything else is a bug and passes as it is."""
    from vllm import exceptions
    from vllm.v1.engine.exceptions import EngineDeadError as DeadError
    from vllm.v1.engine.exceptions import EngineGenerateError

    base = getattr(exceptions, "VLLMError", exceptions.VLLMValidationError)
    return (base, DeadError, EngineGenerateError, PoolingError, ValueError)


def translate(error: Exception) -> PolyvecError:
    """One of `foreign_errors` in polyvec's terms, with the message of its cause.

    Raises:
        KeyError: the error is not in the table.
    """
    names = [ancestor.__name__ for ancestor in type(error).__mro__]
    ours = _TABLE[next((name for name in names if name in _TABLE), names[0])]
    detail = str(error) or type(error).__name__
    cause = error.__cause__
    if cause is not None and str(cause):
        detail = f"{detail} ({cause})"
    if ours is EngineDeadError:
        # Where nobody starts it again, this is all that a user sees.
        detail = f"{detail} Load the checkpoint again; with POLYVEC_LOG_LEVEL=INFO, the engine says more."
    if ours is ForeignInputError:
        return ForeignInputError(detail, origin=type(error).__name__)
    return ours(detail)
