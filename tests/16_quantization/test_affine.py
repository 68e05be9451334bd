"""What may be relied on when numbers become codes and come back: also subnormal, huge, constant and single ones."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from tinytorch.quantization.affine import (
    choose_qparams,
    code_range,
    dequantize,
    fake_quantize,
    qparams_of_range,
    quantize_per_channel,
    quantize_per_tensor,
)

LARGEST = np.finfo(np.float32).max
SMALLEST = np.finfo(np.float32).smallest_subnormal
SMALLEST_NORMAL = np.finfo(np.float32).tiny

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
ordinary = st.floats(-4, 4, width=32)
float_arrays = st.one_of(
    arrays_of.arrays(np.float32, arrays_of.array_shapes(max_side=8), elements=floats),
    arrays_of.arrays(np.float32, arrays_of.array_shapes(max_side=8), elements=ordinary),
    st.builds(np.full, arrays_of.array_shapes(max_side=4), floats, st.just(np.float32)),
)
kinds = st.fixed_dictionaries({"bits": st.integers(2, 8), "symmetric": st.booleans()})
EDGES = [
    [0.0],
    [-0.0, 0.0],
    [5.0],
    [-5.0, -5.0],
    [SMALLEST],
    [-SMALLEST, SMALLEST],
    [SMALLEST_NORMAL, -SMALLEST],
    [LARGEST],
    [-LARGEST, LARGEST],
    [-LARGEST, 0.3 * LARGEST],
    [-LARGEST, SMALLEST],
    [-1.0, 1.0],
]


def with_edges(test):
    """Try the edges first, in every kind of code at its narrowest and widest."""
    for values in EDGES:
        for bits in (2, 8):
            for symmetric in (False, True):
                test = example(x=np.array(values, np.float32), kind={"bits": bits, "symmetric": symmetric})(test)
    return given(x=float_arrays, kind=kinds)(test)


def there_and_back(x, kind):
    scale, zero_point = choose_qparams(x, **kind)
    codes = quantize_per_tensor(x, scale, zero_point, **kind)
    return codes, dequantize(codes, scale, zero_point), scale, zero_point


def largest_error(x, scale):
    """Return half a step, and two roundings to float32: one of x / scale, one of the product that comes back.

    With e the error, |e| <= scale / 2 + 2^-24 |x| + 2^-24 (|x| + |e|); the last factor covers the |e| on the right, and
    that this is computed in float64.
    """
    return (np.float64(scale) / 2 + 2.0**-23 * np.abs(x.astype(np.float64))) * (1 + 2.0**-23)


@with_edges
def test_the_error_is_at_most_half_a_step(x, kind):
    _, values, scale, _ = there_and_back(x, kind)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    error = np.abs(values.astype(np.float64) - x)
    assert (error <= largest_error(x, scale)).all()


@with_edges
def test_no_step_is_wider_than_the_range_needs(x, kind):
    """A scale of twice the size would pass for small errors elsewhere; its own size is held here."""
    scale, _ = choose_qparams(x, **kind)
    lowest, highest = code_range(**kind)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    exact = max(-low, high) / highest if kind["symmetric"] else (high - low) / (highest - lowest)
    if exact > 0:
        assert exact <= float(scale) <= max(exact * (1 + 2.0**-23), float(SMALLEST_NORMAL))
    else:
        assert scale == 1.0


@with_edges
def test_zero_is_represented_exactly(x, kind):
    """Padding and ReLU zeros must not turn into small numbers."""
    scale, zero_point = choose_qparams(x, **kind)
    codes = quantize_per_tensor(np.zeros_like(x), scale, zero_point, **kind)
    assert not dequantize(codes, scale, zero_point).any()


@with_edges
def test_what_came_back_has_the_code_it_came_from(x, kind):
    codes, values, scale, zero_point = there_and_back(x, kind)
    np.testing.assert_array_equal(quantize_per_tensor(values, scale, zero_point, **kind), codes)


@with_edges
def test_a_code_takes_one_byte_and_lies_in_the_range_of_its_bits(x, kind):
    codes, _, _, zero_point = there_and_back(x, kind)
    lowest, highest = code_range(**kind)
    assert codes.nbytes == x.size
    assert codes.shape == x.shape
    assert codes.dtype == (np.int8 if kind["symmetric"] else np.uint8)
    assert lowest <= codes.min()
    assert codes.max() <= highest
    assert lowest <= zero_point <= highest


@with_edges
def test_a_larger_value_never_has_a_smaller_code(x, kind):
    ordered = np.sort(x, axis=None)
    codes, values, _, _ = there_and_back(ordered, kind)
    assert (np.diff(codes.astype(int)) >= 0).all()
    assert (values[:-1] <= values[1:]).all()


@with_edges
def test_the_scale_is_a_normal_float32_and_the_zero_point_an_int32(x, kind):
    scale, zero_point = choose_qparams(x, **kind)
    assert isinstance(scale, np.float32)
    assert isinstance(zero_point, np.int32)
    assert SMALLEST_NORMAL <= scale <= LARGEST


@given(x=float_arrays, bits=st.integers(2, 8))
def test_the_symmetric_code_of_minus_x_is_minus_the_code_of_x(x, bits):
    kind = {"bits": bits, "symmetric": True}
    scale, zero_point = choose_qparams(x, **kind)
    assert zero_point == 0
    assert choose_qparams(-x, **kind) == (scale, zero_point)
    for y in (x, np.append(x, [-np.inf, np.inf]).astype(np.float32)):
        codes, negative = (quantize_per_tensor(z, scale, zero_point, **kind) for z in (y, -y))
        np.testing.assert_array_equal(negative, -codes)


@given(scale=st.floats(2.0**-40, 2.0**40, width=32), kind=kinds, data=st.data())
def test_every_code_comes_back_whatever_the_scale(scale, kind, data):
    lowest, highest = code_range(**kind)
    zero_point = 0 if kind["symmetric"] else data.draw(st.integers(lowest, highest))
    codes = np.arange(lowest, highest + 1).astype(np.int8 if kind["symmetric"] else np.uint8)
    values = dequantize(codes, scale, zero_point)
    np.testing.assert_array_equal(quantize_per_tensor(values, scale, zero_point, **kind), codes)


@given(
    low=st.floats(-100, 0, width=32),
    high=st.floats(0, 100, width=32),
    kind=kinds,
    x=arrays_of.arrays(np.float32, 20, elements=floats),
)
def test_values_beyond_the_range_saturate(low, high, kind, x):
    scale, zero_point = qparams_of_range(low, high, **kind)
    codes = quantize_per_tensor(x, scale, zero_point, **kind)
    lowest, highest = code_range(**kind)
    first, last = ((float(code) - zero_point) * float(scale) for code in (lowest, highest))
    assert (codes[x >= last] == highest).all()
    assert (codes[x <= first] == lowest).all()
    extremes = np.array([-np.inf, np.inf, -LARGEST, LARGEST], np.float32)
    extreme_codes = quantize_per_tensor(extremes, scale, zero_point, **kind)
    if scale < 1e30:
        assert extreme_codes.tolist() == [lowest, highest] * 2


def test_codes_are_those_of_the_formula_worked_by_hand():
    """Range -1 to 1.55, so the scale is 0.01 and the zero point 100; halves go to the even number."""
    x = np.array([-1.0, -0.014, 0.0, 0.016, 1.55, 9.0], np.float32)
    assert quantize_per_tensor(x, 0.01, 100).tolist() == [0, 99, 100, 102, 255, 255]
    halves = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    assert quantize_per_tensor(halves, 1.0, 0, symmetric=True).tolist() == [-2, -2, 0, 0, 2, 2]
    assert quantize_per_tensor(halves, 1.0, 3, bits=3).tolist() == [1, 1, 3, 3, 5, 5]


def test_x_is_divided_by_the_scale_in_float32():
    """0.385 / 0.11 is 3.5 there. To multiply by 1 / 0.11 makes 3.4999998 of it, and another code."""
    x, scale = np.float32(0.385), np.float32(0.11)
    assert np.rint(x * (np.float32(1.0) / scale)) == 3
    assert quantize_per_tensor(np.array([x]), scale, 0)[0] == 4


def test_the_parameters_of_known_ranges():
    assert qparams_of_range(-127.0, 50.0, symmetric=True) == (1.0, 0)
    assert qparams_of_range(-1.0, 3.0, bits=2, symmetric=True) == (3.0, 0)
    assert qparams_of_range(2.0, 255.0) == (1.0, 0)
    assert qparams_of_range(-255.0, -2.0) == (1.0, 255)
    assert qparams_of_range(-64.0, 191.0) == (1.0, 64)
    assert qparams_of_range(0.0, 0.0) == (1.0, 0)


@given(
    x=arrays_of.arrays(np.float32, arrays_of.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=floats),
    kind=kinds,
    data=st.data(),
)
def test_per_channel_is_per_tensor_on_every_channel(x, kind, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    scales, zero_points = choose_qparams(x, **kind, axis=axis)
    codes = quantize_per_channel(x, scales, zero_points, axis, **kind)
    values = dequantize(codes, scales, zero_points, axis)
    assert scales.shape == zero_points.shape == (x.shape[axis],)
    assert (scales.dtype, zero_points.dtype) == (np.float32, np.int32)
    for c in range(x.shape[axis]):
        channel = x.take(c, axis)
        expected_codes, expected, scale, zero_point = there_and_back(channel, kind)
        assert (scales[c], zero_points[c]) == (scale, zero_point)
        np.testing.assert_array_equal(codes.take(c, axis), expected_codes)
        np.testing.assert_array_equal(values.take(c, axis), expected)


@given(x=float_arrays, kind=kinds)
def test_to_fake_quantize_is_to_quantize_and_come_back(x, kind):
    np.testing.assert_array_equal(fake_quantize(x, **kind), there_and_back(x, kind)[1])


def test_fewer_bits_leave_fewer_values_and_a_larger_error():
    x = np.random.default_rng(0).standard_normal((40, 50), np.float32)
    errors = []
    for bits in range(8, 1, -1):
        values = fake_quantize(x, bits, axis=0)
        errors.append(np.square(values - x).mean())
        assert max(len(np.unique(row)) for row in values) <= 2**bits - 1
    assert errors == sorted(errors)
    assert errors[-1] > 1000 * errors[0]


def test_other_floats_and_layouts_have_the_codes_of_their_float32_copy():
    x = np.random.default_rng(0).standard_normal((6, 4))
    assert choose_qparams(x) == choose_qparams(x.astype(np.float32))
    odd = x.T[::-1, ::2]
    np.testing.assert_array_equal(
        quantize_per_tensor(odd, 0.1, 128), quantize_per_tensor(odd.astype(np.float32).copy(), 0.1, 128)
    )
    half = x.astype(np.float16)
    assert fake_quantize(half, 8).dtype == np.float32


def test_nothing_is_written_into_the_arrays_that_are_given():
    x = np.linspace(-1, 1, 10, dtype=np.float32)
    x.flags.writeable = False
    fake_quantize(x, 4)
    np.testing.assert_array_equal(x, np.linspace(-1, 1, 10, dtype=np.float32))


def test_a_number_without_axes_and_an_empty_array_have_codes():
    codes = quantize_per_tensor(np.array(0.5, np.float32), 0.1, 0)
    assert (codes.shape, codes.dtype, int(codes)) == ((), np.uint8, 5)
    assert dequantize(codes, 0.1, 0).shape == ()
    assert quantize_per_tensor(np.empty((0, 3), np.float32), 0.1, 0).shape == (0, 3)


def test_wider_integers_come_back_like_codes():
    """Sums of products of codes are int32."""
    sums = np.array([-100_000, 0, 70_000], np.int32)
    np.testing.assert_array_equal(dequantize(sums, 0.5, 0), np.array([-50_000, 0, 35_000], np.float32))


X = np.zeros((2, 3), np.float32)
NAN = np.array([[0.0, 1.0], [np.nan, np.nan]], np.float32)
INF = np.array([0.0, -np.inf, 1.0], np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: code_range(1, False), ValueError, "bits must be a whole number from 2 to 8, got 1"),
        (lambda: choose_qparams(X, bits=9), ValueError, "from 2 to 8, got 9"),
        (lambda: fake_quantize(X, 4.0), ValueError, "from 2 to 8, got 4.0"),
        (lambda: choose_qparams(NAN), ValueError, r"NaN or infinite at 2 of 4 places, first at \(1, 0\)"),
        (lambda: choose_qparams(INF), ValueError, r"NaN or infinite at 1 of 3 places, first at \(1,\)"),
        (lambda: choose_qparams(np.array([1e300])), ValueError, "NaN or infinite at 1 of 1 places"),
        (lambda: choose_qparams(X[:0]), ValueError, r"x of shape \(0, 3\) is empty"),
        (lambda: choose_qparams(np.arange(3)), TypeError, r"must hold floats, got int64: convert"),
        (lambda: choose_qparams(X, axis=2), ValueError, "axis 2 is out of bounds"),
        (lambda: qparams_of_range(2.0, 1.0), ValueError, "got 2 to 1"),
        (lambda: qparams_of_range(0.0, np.nan), ValueError, "got 0 to nan"),
        (lambda: qparams_of_range(np.array([0.0, -1e39]), np.ones(2)), ValueError, r"got -1e\+39 to 1"),
        (lambda: quantize_per_tensor(NAN, 1.0, 0), ValueError, r"NaN at 2 of 4 places, first at \(1, 0\)"),
        (lambda: quantize_per_tensor(X.astype(np.uint8), 1.0, 0), TypeError, "must hold floats, got uint8"),
        (lambda: quantize_per_tensor(X, 0.0, 0), ValueError, r"positive finite float32, got 0\.0"),
        (lambda: quantize_per_tensor(X, -1.0, 0), ValueError, r"positive finite float32, got -1\.0"),
        (lambda: quantize_per_tensor(X, np.nan, 0), ValueError, "positive finite float32, got nan"),
        (lambda: quantize_per_tensor(X, 1e39, 0), ValueError, "positive finite float32, got inf"),
        (lambda: quantize_per_tensor(X, 1e-50, 0), ValueError, r"positive finite float32, got 0\.0"),
        (lambda: quantize_per_tensor(X, 1.0, 256), ValueError, r"lies in 0 \.\.\. 255, got 256"),
        (lambda: quantize_per_tensor(X, 1.0, 16, bits=4), ValueError, r"lies in 0 \.\.\. 15, got 16"),
        (lambda: quantize_per_tensor(X, 1.0, 3, symmetric=True), ValueError, r"lies in 0 \.\.\. 0, got 3"),
        (lambda: quantize_per_tensor(X, 1.0, 0.5), TypeError, "whole number, got float64"),
        (lambda: quantize_per_tensor(X, np.ones(3), 0), ValueError, r"one scale for a tensor, got shape \(3,\)"),
        (
            lambda: quantize_per_channel(X, np.ones(2), np.zeros(2, int), 1),
            ValueError,
            r"one scale for each of 3 channels of axis 1, got shape \(2,\)",
        ),
        (
            lambda: quantize_per_channel(X, np.ones(3), np.zeros(1, int), -1),
            ValueError,
            r"one zero point for each of 3 channels of axis 1, got shape \(1,\)",
        ),
        (lambda: quantize_per_channel(X, np.ones(3), np.zeros(3, int), 2), ValueError, "axis 2 is out of bounds"),
        (lambda: dequantize(X, 1.0, 0), TypeError, "codes are whole numbers, got float32"),
        (lambda: dequantize(X.astype(np.int8), 1.0, 128), ValueError, r"lies in -128 \.\.\. 127, got 128"),
        (lambda: dequantize(X.astype(np.int8), np.inf, 0), ValueError, "positive finite float32, got inf"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
