import inspect

import pytest

from pooling import NonFiniteError, VisionMarkerError
from serving import EngineDeadError, EngineError, InputError
from serving.engine.foreign import _TABLE, foreign_errors, translate
from serving.errors import ForeignInputError, NoVectorsError
from serving.http.errors import from_polyvec


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

    assert type(translate(VLLMValidationError("too long"))) is ForeignInputError
    assert type(translate(DeadError())) is EngineDeadError
    overflow = QueueOverflowError.__new__(QueueOverflowError)
    assert type(translate(overflow)) is EngineError


def test_a_vector_that_is_not_finite_is_the_engines_fault_and_that_inputs_alone() -> None:
    error = translate(NonFiniteError("3 values are NaN"))
    assert isinstance(error, NoVectorsError)
    answer = from_polyvec(error.at(3))
    assert answer is not None
    assert (answer.status, answer.code) == (500, "INTERNAL_ERROR")
    assert answer.detail.startswith("input.3: The engine has no vectors for this input;")
    assert answer.for_log == "The engine has no vectors for an input: 3 values are NaN"


def test_a_span_that_cannot_be_pooled_is_that_inputs_error_in_our_own_words() -> None:
    assert type(translate(VisionMarkerError("two images"))) is InputError


def test_what_the_engine_refuses_is_told_in_full_here_and_not_over_http(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = translate(ValueError("Prompt of 9 tokens 'my secret' in /srv/models"))
    assert isinstance(error, ForeignInputError)
    assert str(error.at(3)) == "Input 3: Prompt of 9 tokens 'my secret' in /srv/models"
    with caplog.at_level("WARNING"):
        answer = from_polyvec(error.at(3))
    assert answer is not None
    assert (answer.status, answer.detail) == (422, "input.3: The engine refused this input.")
    assert [record.getMessage() for record in caplog.records] == [
        "The engine refused an input: ValueError: Prompt of 9 tokens"
    ]


def test_the_cause_is_told_too() -> None:
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    assert str(translate(error)) == "outer ('inner')"


def test_a_bug_is_not_translated() -> None:
    with pytest.raises(KeyError):
        translate(AttributeError("a bug"))
