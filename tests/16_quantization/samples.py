"""Values to observe: of many distributions and magnitudes, more than a histogram keeps as they are, or fewer."""

import numpy as np
from hypothesis import strategies as st

KEPT = 8192  # values that a histogram keeps as they are


@st.composite
def samples(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.one_of(st.integers(1, 20), st.integers(KEPT, 2 * KEPT)))
    distributions = [
        lambda: rng.standard_normal(n),
        lambda: rng.standard_t(2, n),
        lambda: rng.exponential(size=n),
        lambda: -rng.random(n),
        lambda: np.maximum(rng.standard_normal(n), 0.0),
        lambda: rng.choice([-1.0, 0.0, 0.5], n),
        lambda: rng.standard_normal(n) * 2.0 ** rng.integers(-140, 1, n),
        lambda: np.full(n, rng.standard_normal()),
        lambda: np.zeros(n),
    ]
    x = draw(st.sampled_from(distributions))()
    largest = max(float(np.abs(x).max()), 1.0)
    with np.errstate(under="ignore"):
        return np.ldexp(x / largest, draw(st.integers(-149, 127))).astype(np.float32)
