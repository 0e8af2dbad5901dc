"""How the stages of a request are timed."""

import time

import pytest

from serving.http.stages import Stage, Stages


def test_a_stage_counts_once_while_blocks_of_it_nest_or_overlap() -> None:
    stages = Stages()
    fetch = Stage.FETCH
    began_s = time.perf_counter()
    with stages.measure(fetch), stages.measure(fetch):
        time.sleep(0.002)
        with stages.measure(fetch):
            time.sleep(0.002)
    took_s = time.perf_counter() - began_s
    assert 0.004 <= stages.seconds[fetch] <= took_s


def test_a_stage_sums_its_blocks_and_spans_from_the_first_to_the_last() -> None:
    stages = Stages()
    for _ in range(2):
        with stages.measure(Stage.ENGINE):
            time.sleep(0.001)
        time.sleep(0.001)
    with stages.measure(Stage.ENGINE):
        pass
    (engine,) = stages.times()
    span_s = (engine.ended_ns - engine.started_ns) / 1e9
    assert 0.002 <= engine.busy_s <= span_s - 0.002
    assert stages.started_ns <= engine.started_ns


def test_a_stage_left_by_an_error_or_still_open_is_counted() -> None:
    stages = Stages()
    with pytest.raises(OSError, match="gone"), stages.measure(Stage.FETCH):
        raise OSError("gone")
    with stages.measure(Stage.QUEUE):
        assert list(stages.seconds) == [Stage.FETCH, Stage.QUEUE]
        assert all(seconds > 0 for seconds in stages.seconds.values())
