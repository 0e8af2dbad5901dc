import inspect
import subprocess
import sys

import pytest

import pooling
from pooling import errors


def test_every_public_name_exists_once_and_is_documented():
    assert len(set(pooling.__all__)) == len(pooling.__all__) == 34
    for name in pooling.__all__:
        assert inspect.getdoc(getattr(pooling, name)), name


def test_every_error_is_public_and_a_value_error():
    classes = [value for value in vars(errors).values() if inspect.isclass(value)]
    assert len(classes) == 9
    for error in classes:
        assert issubclass(error, ValueError)
        assert issubclass(error, pooling.PoolingError)
        assert error.__name__ in pooling.__all__


WITHOUT_THE_CHECKER = """
import sys
import torch
import pooling
assert not {"transformers", "vllm", "pydantic", "beartype"} & set(sys.modules), "pooling is pure"
tokens = torch.ones(4, 8)
mistakes = {
    "(8,), expected (token, hidden)": lambda: pooling.single_vector(tokens[0], pooling.whole(1)),
    "(8,), expected (token, 6)": lambda: pooling.multi_vector(
        tokens[0], pooling.Projector(torch.ones(2, 6), None)),
    "weight has shape (8,), expected (dim, hidden)": lambda: pooling.Projector(tokens[0], None),
    "bias has shape (9,), expected (4,)": lambda: pooling.Projector(tokens, torch.ones(9)),
    "document 1 has shape (4, 9)": lambda: pooling.maxsim_scores(
        [tokens], [tokens, torch.ones(4, 9)]),
    "document 0 has shape (4, 7)": lambda: pooling.maxsim(tokens, tokens[:, :7]),
    "document 0 has shape (7,)": lambda: pooling.maxsim(tokens, tokens[0, :7]),
}
for expected, mistake in mistakes.items():
    try:
        mistake()
    except pooling.ShapeError as error:
        assert expected in str(error), error
    else:
        raise AssertionError(expected)
print(len(mistakes))
"""


@pytest.mark.timeout(60)
def test_in_production_shapes_are_refused_by_sentences_without_the_test_sessions_checker():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_CHECKER], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("7", "")
