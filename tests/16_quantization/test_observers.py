"""What observers choose, whatever the order and the batches that values come in."""

import importlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from tinytorch.quantization.affine import (
    choose_qparams,
    dequantize,
    qparams_of_range,
    quantize_per_channel,
    quantize_per_tensor,
)
from tinytorch.quantization.observers import (
    MinMaxObserver,
    MSEObserver,
    PercentileObserver,
    least_squares_range,
    qparams_per_channel,
)

drawn = importlib.import_module("tests.16_quantization.samples")

every_observer = pytest.mark.parametrize("observer", [MinMaxObserver, PercentileObserver, MSEObserver])
kinds = st.fixed_dictionaries({"bits": st.integers(2, 8), "symmetric": st.booleans()})


def after(observer, *batches):
    for batch in batches:
        observer.observe(batch)
    return observer


def ends_of(x, symmetric):
    """Return the range of x with 0, and as wide on both sides if symmetric."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    return (-max(-low, high), max(-low, high)) if symmetric else (low, high)


def error(x, ends, bits, symmetric):
    """Return the root mean square error of x as codes that reach over this range."""
    scale, zero_point = qparams_of_range(*ends, bits=bits, symmetric=symmetric)
    codes = quantize_per_tensor(x, scale, zero_point, bits=bits, symmetric=symmetric)
    return math.sqrt(np.square(dequantize(codes, scale, zero_point) - x.astype(np.float64)).mean())


@every_observer
@given(x=drawn.samples(), kind=kinds, data=st.data())
def test_neither_batches_nor_their_order_change_the_choice(observer, x, kind, data):
    whole = after(observer(**kind), x)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    cuts = np.sort(rng.integers(1, len(x) + 1, data.draw(st.integers(0, 6))))
    batches = [batch for batch in np.split(rng.permutation(x), cuts) if batch.size]
    parts = after(observer(**kind), *batches)
    assert parts.range() == whole.range()
    assert parts.qparams() == whole.qparams()
    assert parts.count == whole.count == x.size


@every_observer
def test_magnitudes_that_grow_from_batch_to_batch_end_where_shrinking_ones_do(observer):
    rng = np.random.default_rng(0)
    batches = [np.ldexp(rng.standard_normal(3000), e).astype(np.float32) for e in range(-148, 120, 9)]
    batches.insert(0, np.zeros(drawn.KEPT + 1, np.float32))
    assert after(observer(), *batches).range() == after(observer(), *batches[::-1]).range()


@every_observer
@given(x=drawn.samples(), kind=kinds)
def test_the_range_holds_zero_and_does_not_leave_that_of_the_values(observer, x, kind):
    low, high = after(observer(**kind), x).range()
    smallest, largest = ends_of(x, kind["symmetric"])
    assert smallest <= low <= 0.0 <= high <= largest
    assert low == -high or not kind["symmetric"]
    assert "-0.0" not in (str(low), str(high))


@given(x=drawn.samples(), kind=kinds)
def test_min_max_is_exact(x, kind):
    observer = after(MinMaxObserver(**kind), x)
    assert observer.range() == ends_of(x, kind["symmetric"])
    assert observer.qparams() == choose_qparams(x, **kind)


@given(x=drawn.samples(), percentile=st.one_of(st.just(100.0), st.floats(50, 100, exclude_min=True)))
def test_a_percentile_is_numpys_or_less_than_one_bin_further_out(x, percentile):
    observer = after(PercentileObserver(percentile=percentile), x)
    width, wide = observer.histogram.width, x.astype(np.float64)
    low, high = observer.range()
    rounding = 1e-12 * float(np.abs(wide).max())
    true_low, true_high = np.quantile(wide, [1 - percentile / 100, percentile / 100])
    assert min(true_low, 0) - width - rounding <= low <= min(true_low, 0) + rounding
    assert max(true_high, 0) - rounding <= high <= max(true_high, 0) + width + rounding


@given(x=drawn.samples(), percentile=st.floats(50, 100, exclude_min=True))
def test_a_symmetric_percentile_is_that_of_the_magnitudes(x, percentile):
    observer = after(PercentileObserver(symmetric=True, percentile=percentile), x)
    wide = np.abs(x.astype(np.float64))
    true, rounding = np.quantile(wide, percentile / 100), 1e-12 * float(wide.max())
    low, high = observer.range()
    assert low == -high
    assert true - rounding <= high <= true + observer.histogram.width + rounding


@given(x=drawn.samples(), symmetric=st.booleans())
def test_the_percentile_100_is_min_max(x, symmetric):
    observer = after(PercentileObserver(symmetric=symmetric, percentile=100), x)
    assert observer.qparams() == after(MinMaxObserver(symmetric=symmetric), x).qparams()


@given(x=drawn.samples(), kind=kinds)
def test_the_squared_error_is_no_larger_than_that_of_min_max_but_for_a_bin(x, kind):
    """Up to 8192 values, there are no bins and their width is 0."""
    observer = after(MSEObserver(**kind), x)
    rounding = 2.0**-20 * float(np.abs(x).max())  # of float32 when it quantizes, of float64 when it sums squares
    whole = error(x, ends_of(x, kind["symmetric"]), **kind)
    assert error(x, observer.range(), **kind) <= whole + observer.histogram.width + rounding


@pytest.mark.parametrize("n", [3000, 30_000])
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("shape", ["normal", "laplace", "relu", "shifted"])
def test_no_range_of_a_fine_grid_has_an_error_smaller_by_half_a_percent(n, bits, symmetric, shape):
    rng = np.random.default_rng(bits)
    draw = {
        "normal": lambda: rng.standard_normal(n),
        "laplace": lambda: rng.laplace(size=n),
        "relu": lambda: np.maximum(rng.standard_normal(n), 0.0),
        "shifted": lambda: rng.gamma(2.0, size=n) - 0.5,
    }
    x = draw[shape]().astype(np.float32)
    low, high = after(MSEObserver(bits, symmetric), x).range()
    grid = np.linspace(0.05, 1.0, 120) * float(np.abs(x).max())
    others = [(-end, end) for end in grid]
    if not symmetric:  # and one end at a time: neither alone could still be better
        others += [(low, end) for end in grid] + [(-end, high) for end in grid]
    assert error(x, (low, high), bits, symmetric) <= 1.005 * min(error(x, ends, bits, symmetric) for ends in others)


def test_three_levels_for_a_normal_distribution_are_those_of_maxs_table():
    """Max, "Quantizing for minimum distortion" (1960), table II: three levels lie 1.224 apart, and err by 0.1902."""
    x = np.random.default_rng(0).standard_normal(1_000_000, np.float32)
    low, high = after(MSEObserver(bits=2, symmetric=True), x).range()
    assert high == pytest.approx(1.224, rel=0.01)
    assert error(x, (low, high), bits=2, symmetric=True) ** 2 == pytest.approx(0.1902, rel=0.005)


def test_an_outlier_is_clipped_where_codes_are_few_and_kept_where_that_costs_more():
    x = np.append(np.random.default_rng(0).standard_normal(20_000), 60.0).astype(np.float32)
    assert after(MSEObserver(bits=3), x).range()[1] < 8.0
    assert after(MSEObserver(bits=8), x).range()[1] > 50.0


def test_what_a_coarse_share_fits_exactly_is_not_lost_among_finer_ones():
    """All values but one lie on the 16 codes of a range whose share is tried first: no other has so small an error."""
    end = 2.0**-0.25
    values, counts = np.append(np.arange(1, 16) * (end / 15), 1.0), np.append(np.full(15, 10**6), 1)
    assert least_squares_range(values, counts, bits=4) == (0.0, end)


def test_a_range_of_nothing_is_chosen_only_where_all_is_zero():
    """Its scale is 1, which would fit these whole numbers better than the scale of their own range does."""
    x = np.array([0.0, 1.0, 2.0, 3.0, 200.4], np.float32)
    assert after(MSEObserver(), x).range()[1] > 150.0
    assert after(MSEObserver(), np.zeros(9, np.float32)).range() == (0.0, 0.0)


def test_an_end_without_values_is_not_searched():
    x = np.random.default_rng(0).random(1000)
    assert least_squares_range(np.sort(x), np.ones(1000), bits=4)[0] == 0.0
    assert least_squares_range(np.sort(-x), np.ones(1000), bits=4)[1] == 0.0


@given(
    values=arrays_of.arrays(np.float64, 6, elements=st.integers(-20, 20)),
    counts=arrays_of.arrays(np.int64, 6, elements=st.integers(1, 9)),
    kind=kinds,
)
def test_a_value_counts_as_often_as_it_is_there(values, counts, kind):
    values = np.sort(values)
    repeated = np.repeat(values, counts)
    x = repeated.astype(np.float32)
    weighed = least_squares_range(values, counts, **kind)
    one_by_one = least_squares_range(repeated, np.ones(len(x)), **kind)
    assert error(x, weighed, **kind) == pytest.approx(error(x, one_by_one, **kind), rel=1e-3, abs=1e-5)


@every_observer
def test_an_observer_that_saw_nothing_says_what_to_do(observer):
    for ask in (observer().range, observer().qparams):
        with pytest.raises(RuntimeError, match=r"nothing was observed: call observe\(x\) first"):
            ask()


@every_observer
@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        (np.array([1e6, np.nan, np.inf], np.float32), ValueError, r"NaN or infinite at 2 of 3 places, first at \(1,\)"),
        (np.array([[-1e6], [-np.inf]]), ValueError, r"NaN or infinite at 1 of 2 places, first at \(1, 0\)"),
        (np.empty((0, 3), np.float32), ValueError, r"x of shape \(0, 3\) is empty"),
        (np.arange(10**6), TypeError, "must hold floats, got int64"),
    ],
)
def test_a_batch_that_is_refused_leaves_nothing_behind(observer, bad, kind, message):
    seen = after(observer(), np.array([[1.0, -2.0]], np.float32))
    before = seen.range(), seen.count
    with pytest.raises(kind, match=message):
        seen.observe(bad)
    assert (seen.range(), seen.count) == before


@every_observer
@pytest.mark.parametrize("bits", [1, 9, 2.0])
def test_bits_that_no_code_has_are_refused_at_once(observer, bits):
    with pytest.raises(ValueError, match="bits must be a whole number from 2 to 8"):
        observer(bits)


@pytest.mark.parametrize("percentile", [50, 100.1, -1, math.nan])
def test_a_percentile_that_leaves_no_range_is_refused(percentile):
    with pytest.raises(ValueError, match="percentile must be above 50 and at most 100, got"):
        PercentileObserver(percentile=percentile)


@every_observer
def test_what_an_observer_saw_is_its_own(observer):
    """A caller may fill the same buffer with the next batch."""
    buffer = np.array([1.0, -3.0], np.float32)
    seen = after(observer(), buffer)
    before = seen.range()
    buffer[:] = 100.0
    assert seen.range() == before


@every_observer
@given(data=st.data())
def test_parameters_per_channel_are_those_of_an_observer_for_each(observer, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    weight = rng.standard_normal((3, 4, 5)).astype(np.float32) * 10.0 ** rng.integers(-3, 3, (3, 4, 1))
    axis, kind = data.draw(st.integers(-3, 2)), data.draw(kinds)
    scales, zero_points = qparams_per_channel(weight, observer, axis, **kind)
    channels = [after(observer(**kind), weight.take(c, axis)).qparams() for c in range(weight.shape[axis])]
    assert [*zip(scales, zero_points, strict=True)] == channels
    assert (scales.dtype, zero_points.dtype) == (np.float32, np.int32)


def test_per_channel_min_max_is_what_choose_qparams_gives():
    weight = np.random.default_rng(0).standard_normal((6, 3, 5, 5), np.float32)
    scales, zero_points = qparams_per_channel(weight)
    expected = choose_qparams(weight, symmetric=True, axis=0)
    np.testing.assert_array_equal(scales, expected[0])
    np.testing.assert_array_equal(zero_points, expected[1])


def test_four_bits_per_channel_err_less_with_the_squared_error_than_with_min_max():
    weight = np.random.default_rng(0).laplace(size=(16, 288)).astype(np.float32)

    def squared_error(observer):
        scales, zero_points = qparams_per_channel(weight, observer, bits=4)
        values = dequantize(quantize_per_channel(weight, scales, zero_points, 0, bits=4), scales, zero_points, 0)
        return np.square(values - weight).mean(axis=1)

    assert (squared_error(MSEObserver) < 0.9 * squared_error(MinMaxObserver)).all()


def test_a_weight_that_is_not_finite_is_named_with_its_place():
    weight = np.zeros((3, 4), np.float32)
    weight[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinite at 1 of 12 places, first at \(2, 1\)"):
        qparams_per_channel(weight)
