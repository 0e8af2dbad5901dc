import os
import re

import pytest
from tokenizers import Tokenizer

from benchmarks.card import Card
from benchmarks.memory import (
    TEXTS_PER_CALL,
    Growth,
    ProcessMemory,
    Result,
    Sample,
    batches,
    format_growth,
    format_sample,
    growth_of,
    read_memory,
    sampled,
)
from tests.paths import GOLDEN_CHECKPOINT


def memory(rss: int, pss: int = 0) -> ProcessMemory:
    return ProcessMemory(1, "one", rss, pss or rss, 2 * rss)


def sample(num_texts: int, own: int, *engine: int) -> Sample:
    return Sample(num_texts, memory(own), [memory(rss) for rss in engine])


def test_texts_come_in_calls_and_all_differ() -> None:
    made = list(batches(2 * TEXTS_PER_CALL + 5))
    assert [len(batch) for batch in made] == [TEXTS_PER_CALL, TEXTS_PER_CALL, 5]
    assert len({text for batch in made for text in batch}) == 2 * TEXTS_PER_CALL + 5
    tokenizer = Tokenizer.from_file(str(GOLDEN_CHECKPOINT / "tokenizer.json"))
    # Cut at 64, each fills them.
    assert all(len(tokenizer.encode(text).ids) >= 64 for text in made[2])


def test_texts_are_made_when_a_call_needs_them() -> None:
    lazily = batches(10**12)
    assert len(next(lazily)) == TEXTS_PER_CALL


@pytest.mark.parametrize(
    ("num_texts", "expected"),
    [
        (100, [100]),
        (5000, [2048, 4096, 5000]),
        (100_000, [6144, 10240, 16384, 20480, 26624, 30720]),
    ],
)
def test_memory_is_read_after_the_call_that_passes_each_interval(
    num_texts: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.memory.texts", lambda _, number, seed: [str(seed)] * number)
    embedded: list[int] = []
    found = list(
        sampled(
            lambda batch: embedded.append(len(batch)), num_texts, lambda done: sample(done, done)
        )
    )
    assert sum(embedded) == num_texts
    assert [one.num_texts for one in found][: len(expected)] == expected
    assert found[-1].num_texts == num_texts
    assert len(found) <= 20


def test_growth_is_from_the_first_tenth_to_the_last() -> None:
    # An outlier in the middle is no growth; of two samples the median is their mean.
    own = [100, 104, *[500] * 16, 110, 114]
    growth = growth_of([sample(at, rss, 10 * rss, 7) for at, rss in enumerate(own)])
    assert growth == Growth(10.0, 10.0, 100.0, 100.0)


def test_growth_needs_two_samples() -> None:
    assert growth_of([sample(1, 5)]).own_rss_bytes is None
    assert growth_of([sample(1, 5), sample(2, 3)]).own_rss_bytes == -2


def test_memory_of_this_process_is_read() -> None:
    found = read_memory(7)
    assert found.num_texts == 7
    assert found.own.pid == os.getpid()
    # What others write into pages that are shared moves both a little while they are read.
    assert 0 < found.own.pss_bytes <= 1.1 * found.own.rss_bytes
    assert 10e6 < found.own.rss_bytes <= 1.1 * found.own.peak_rss_bytes


def test_a_row_and_the_growth_are_printed_in_megabytes() -> None:
    samples = [sample(2048, 100_000_000, 1_000_000_000), sample(5000, 101_500_000, 999_000_000)]
    assert format_sample(samples[0]).split() == ["2,048", "100.0", "1000.0"]
    card = Card("cpu", 1, 1, None, {}, "2026-01-01")
    result = Result(
        card, "retrieval", True, 5000, 64, 2048, 1.0, 203_000_000, 5, growth_of(samples), samples
    )
    own, engine = format_growth(result).splitlines()
    assert re.search(r"^this process grew by 1\.5 MB .*peak RSS 203\.0 MB$", own)
    assert engine.startswith("the engine grew by -1.0 MB")
