"""A histogram counts every value where it lies, however many there are."""

import importlib
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.quantization.histogram import Histogram

drawn = importlib.import_module("tests.16_quantization.samples")


@given(x=drawn.samples(), shift=st.integers(1, 5))
def test_a_histogram_loses_no_value_and_puts_each_where_it_lies(x, shift):
    histogram = Histogram()
    histogram.add(np.ldexp(x, -20))
    for _ in range(shift):
        histogram.add(x)
    lower, upper, counts = histogram.cells()
    every = np.sort(np.concatenate([np.ldexp(x, -20), *[x] * shift]))
    assert counts.sum() == every.size
    assert counts.min() > 0
    # In order, every value lies in the cell that its place among the counts says.
    cell = np.repeat(np.arange(len(counts)), counts)
    assert (lower[cell] <= every).all()
    assert (every <= upper[cell]).all()
    assert ((lower >= 0) | (upper <= 0)).all()
    assert (upper - lower <= histogram.width).all()


def test_a_number_lost_beside_huge_ones_is_still_below_zero():
    """2^-149 by a bin's width of 2^116 is 0 in float32."""
    histogram = Histogram()
    histogram.add(np.append(np.full(drawn.KEPT, 3e38), -(2.0**-149)).astype(np.float32))
    lower, _, counts = histogram.cells()
    assert counts.tolist() == [1, drawn.KEPT]
    assert lower[0] == -(2.0**-149)


@given(x=drawn.samples())
def test_bins_are_at_most_a_2048th_of_the_largest_value_wide_and_a_power_of_two(x):
    histogram = Histogram()
    histogram.add(x)
    largest = float(np.abs(x).max())
    if x.size <= drawn.KEPT:
        assert histogram.width == 0.0
    else:
        assert math.frexp(histogram.width)[0] == 0.5
        assert histogram.width <= max(largest / 2048, 2.0**-149)


def test_a_histogram_takes_no_more_room_after_a_thousand_batches():
    rng, histogram, largest = np.random.default_rng(0), Histogram(), 0
    for _ in range(1000):
        histogram.add(rng.standard_t(1, 100).astype(np.float32))
        largest = max(largest, sum(getattr(part, "nbytes", 0) for part in vars(histogram).values()))
    assert 0 < largest <= 128 * 1024
    assert histogram.cells().counts.sum() == 100_000
