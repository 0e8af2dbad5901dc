import inspect

import pytest

from pooling import NonFiniteError
from serving import EngineDeadError, EngineError, InputError
from serving.engine.foreign import _TABLE, foreign_errors, translate


@pytest.mark.engine
def test_every_error_class_of_vllm_has_a_translation() -> None:
    from vllm import exceptions
    from vllm.v1.engine import exceptions as engine_exceptions

    classes = [
        value
        for module in (exceptions, engine_exceptions)
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Exception) and value.__module__ == module.__name__
    ]
    assert len(classes) > 8
    caught = foreign_errors()
    for value in classes:
        assert issubclass(value, caught), value
        assert any(ancestor.__name__ in _TABLE for ancestor in value.__mro__), value


@pytest.mark.engine
def test_the_clients_fault_and_the_engines_are_told_apart() -> None:
    from vllm.exceptions import QueueOverflowError, VLLMValidationError
    from vllm.v1.engine.exceptions import EngineDeadError as DeadError

    assert type(translate(VLLMValidationError("too long"))) is InputError
    assert type(translate(DeadError())) is EngineDeadError
    overflow = QueueOverflowError.__new__(QueueOverflowError)
    assert type(translate(overflow)) is EngineError


def test_a_vector_that_is_not_finite_is_that_inputs_error() -> None:
    assert type(translate(NonFiniteError("3 values are NaN"))) is InputError


def test_the_cause_is_told_too() -> None:
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    assert str(translate(error)) == "outer ('inner')"


def test_a_bug_is_not_translated() -> None:
    with pytest.raises(KeyError):
        translate(AttributeError("a bug"))
