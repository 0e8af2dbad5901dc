from hypothesis import given, settings
from hypothesis import strategies as st

from serving.http.limits_window import LimitKind, Standing

WINDOWS = st.builds(
    Standing,
    kind=st.just(LimitKind.TOKENS),
    limit=st.integers(1, 1000),
    previous=st.integers(0, 1000),
    current=st.integers(0, 1000),
    elapsed_s=st.floats(0, 59.999),
)


@settings(deadline=None)
@given(standing=WINDOWS, data=st.data())
def test_after_the_time_named_the_same_request_fits(
    standing: Standing, data: st.DataObject
) -> None:
    amount = data.draw(st.integers(1, standing.limit))
    wait_s = standing.wait_s(amount)
    assert 1 <= wait_s <= 120
    then = _later(standing, wait_s + 1e-6)
    assert then.used + amount <= standing.limit
    if wait_s > 2:
        sooner = _later(standing, wait_s - 1.001)
        assert sooner.used + amount > standing.limit


def _later(standing: Standing, after_s: float) -> Standing:
    minutes, elapsed_s = divmod(standing.elapsed_s + after_s, 60)
    previous, current = standing.previous, standing.current
    for _ in range(int(minutes)):
        previous, current = current, 0
    return Standing(standing.kind, standing.limit, previous, current, elapsed_s)


def test_nothing_used_is_a_whole_limit_that_needs_no_reset() -> None:
    assert Standing(LimitKind.TOKENS, 10, 0, 0, 30.0).headers() == {
        "X-RateLimit-Limit-Tokens": "10",
        "X-RateLimit-Remaining-Tokens": "10",
        "X-RateLimit-Reset-Tokens": "0",
    }
