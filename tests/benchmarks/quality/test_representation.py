"""What an index keeps of a vector, beside numpy."""

import numpy as np
import pytest
import torch

from benchmarks.quality.errors import SpecError
from benchmarks.quality.representation import Representation, score_table
from tests.http.oracle import maxsim, multi, single, unit

IDS = [[3, 5, 9], [4, 8], [100, 7, 2, 50]]


def singles() -> list[torch.Tensor]:
    return [torch.tensor(single(ids), dtype=torch.float32) for ids in IDS]


def multis() -> list[torch.Tensor]:
    return [torch.tensor(multi(ids), dtype=torch.float32) for ids in IDS]


def test_scores_of_single_vectors_are_cosines() -> None:
    table = np.array([single(ids) for ids in IDS])
    assert np.allclose(score_table(singles(), singles()), table @ table.T, atol=1e-6)


def test_scores_of_multi_vectors_are_maxsim() -> None:
    scores = [[maxsim(query, document) for document in IDS] for query in IDS]
    assert np.allclose(score_table(multis(), multis()), scores, atol=1e-5)


def test_cut_vectors_have_unit_length_again() -> None:
    kept = Representation(dimensions=8)
    for ids, vector in zip(IDS, singles(), strict=True):
        assert np.allclose(kept.cut(vector), single(ids, 8), atol=1e-6)


def test_binary_scores_count_equal_signs() -> None:
    kept = Representation(precision="binary")
    scores = score_table([kept.quantised(v) for v in singles()], [kept.quantised(singles()[0])])
    signs = [np.sign(single(ids)) for ids in IDS]
    assert np.allclose(scores[:, 0], [(sign == signs[0]).mean() * 2 - 1 for sign in signs])


def test_int8_scores_are_those_of_rounded_values() -> None:
    kept = Representation(precision="int8")
    scores = score_table([kept.quantised(v) for v in singles()], [kept.quantised(singles()[0])])
    rounded = [np.round(single(ids) / np.abs(single(ids)).max() * 127) for ids in IDS]
    assert np.allclose(scores[:, 0], unit(np.array(rounded)) @ unit(rounded[0]), atol=1e-5)


@pytest.mark.parametrize(
    ("kept", "num_bytes"),
    [
        (Representation(), 256),
        (Representation(precision="int8"), 68),
        (Representation(precision="binary"), 8),
        (Representation("multi"), 3 * 128),
        (Representation("multi", precision="int8"), 3 * 36),
        (Representation("multi", precision="binary"), 3 * 4),
    ],
)
def test_bytes_are_those_of_values_and_scales(kept: Representation, num_bytes: int) -> None:
    vector = multis()[0] if kept.vectors == "multi" else singles()[0]
    assert kept.num_bytes(vector) == num_bytes


def test_what_excludes_each_other_is_refused() -> None:
    with pytest.raises(SpecError, match="Multi-vectors have one dimension"):
        Representation("multi", dimensions=8)
    with pytest.raises(SpecError, match="at least 1 dimension"):
        Representation(dimensions=0)
