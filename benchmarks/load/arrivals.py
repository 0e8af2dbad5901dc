"""When requests are due: a Poisson process, the same for the same seed.

Knows nothing of what is sent, nor of whether anybody answers: that is what makes the load open.
"""

import numpy as np


def poisson(rate_per_s: float, duration_s: float, seed: int) -> list[float]:
    """Seconds from the start at which requests are due, in order, all before `duration_s`.

    Gaps are independent and exponential with mean `1 / rate_per_s`.
    """
    if rate_per_s <= 0 or duration_s <= 0:
        raise ValueError(
            f"A rate and a duration are greater than 0; got {rate_per_s} and {duration_s}."
        )
    rng = np.random.default_rng(seed)
    expected = rate_per_s * duration_s
    # Six deviations more than expected, and a few for small counts: one draw nearly always reaches the end.
    draw = int(expected + 6 * expected**0.5 + 16)
    gaps = rng.exponential(1 / rate_per_s, draw)
    due = np.cumsum(gaps)
    while due[-1] < duration_s:
        due = np.concatenate([due, due[-1] + np.cumsum(rng.exponential(1 / rate_per_s, draw))])
    return [float(at) for at in due[due < duration_s]]
