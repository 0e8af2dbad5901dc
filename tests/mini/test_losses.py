import math

import pytest
import torch
from scipy import stats

from mini.quality.figures import ndcg_at_10, ranks, recall_at_1, spearman
from mini.training.losses import cosent, info_nce, late_interaction, matryoshka_info_nce
from pooling import maxsim_scores


def test_late_interaction_is_the_maxsim_of_pooling_divided_by_the_querys_tokens() -> None:
    torch.manual_seed(0)
    queries, pages = (
        torch.nn.functional.normalize(torch.randn(n, t, 16), dim=-1) for n, t in ((3, 5), (4, 7))
    )
    query_mask, page_mask = torch.ones(3, 5, dtype=torch.bool), torch.ones(4, 7, dtype=torch.bool)
    query_mask[1, 3:] = False
    page_mask[2, 4:] = False
    expected = maxsim_scores(
        [one[mask] for one, mask in zip(queries, query_mask, strict=True)],
        [one[mask] for one, mask in zip(pages, page_mask, strict=True)],
    )
    got = late_interaction(queries, query_mask, pages, page_mask) * query_mask.sum(1)[:, None]
    torch.testing.assert_close(got, expected.float())


def test_info_nce_of_scores_that_say_nothing_is_the_log_of_the_batch() -> None:
    everything = torch.ones(8, 8, dtype=torch.bool)
    assert info_nce(torch.zeros(8, 8), everything, 0.05).item() == pytest.approx(math.log(8))


def test_a_page_that_answers_as_well_is_no_negative() -> None:
    scores = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    everything = torch.ones(2, 2, dtype=torch.bool)
    without = everything.clone()
    without[0, 1] = False
    assert info_nce(scores, without, 0.05) < info_nce(scores, everything, 0.05)
    assert info_nce(scores, without, 0.05).item() == pytest.approx(0, abs=1e-6)


def test_every_cut_counts() -> None:
    # The first two dimensions say nothing, the others everything.
    vectors = torch.cat([torch.ones(4, 2), 5 * torch.eye(4)], dim=1)
    everything = torch.ones(4, 4, dtype=torch.bool)
    whole = matryoshka_info_nce(vectors, vectors, everything, (6,))
    both = matryoshka_info_nce(vectors, vectors, everything, (2, 6))
    assert both.item() == pytest.approx((whole.item() + math.log(4)) / 2, abs=1e-5)


def test_cosent_is_small_when_cosines_are_ordered_and_large_when_they_are_not() -> None:
    similarities = torch.tensor([0.0, 0.5, 1.0])
    right, wrong = torch.tensor([-0.9, 0.0, 0.9]), torch.tensor([0.9, 0.0, -0.9])
    assert cosent(right, similarities) < 1e-5
    assert cosent(wrong, similarities) > 30


def test_a_tie_counts_against_the_answer() -> None:
    scores = torch.tensor([[0.5, 0.5, 0.1], [0.1, 0.9, 0.2]])
    found = ranks(scores)
    assert found.tolist() == [2, 1]
    assert recall_at_1(found).mean == 0.5
    assert ndcg_at_10(found).mean == pytest.approx((1 / math.log2(3) + 1) / 2)


def test_a_rank_past_ten_gains_nothing_and_the_interval_holds_the_mean() -> None:
    found = torch.tensor([1, 11, 2, 1, 30] * 20)
    figure = ndcg_at_10(found)
    assert figure.mean == pytest.approx((1 + 0 + 1 / math.log2(3) + 1 + 0) / 5)
    assert figure.low < figure.mean < figure.high


def test_spearman_is_that_of_scipy() -> None:
    torch.manual_seed(1)
    one = torch.randn(50)
    other = one + torch.randn(50)
    figure = spearman(one, other)
    assert figure.mean == pytest.approx(stats.spearmanr(one.numpy(), other.numpy()).statistic)
    assert figure.low < figure.mean < figure.high
