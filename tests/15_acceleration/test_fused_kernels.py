"""Softmax, GELU, normalization, updates: three backends, one result, and what the compiled versions promise besides.

The naive loops are the oracle. Compiled code counts in addresses, so its arguments lie in larger buffers here, between
guards that must stay as they are, and every array that it allocates lies between guards too.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import backend, set_num_threads
from tinytorch.kernels import activation, normalization, softmax, update
from tinytorch.kernels.backend import BACKENDS, Kernel

seeds = st.integers(0, 2**32 - 1)
GUARD = np.float32(-7e37)  # no result comes near it
SIZES = st.sampled_from([1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 48, 67])
LAYOUTS = ["C", "Fortran", "every second", "backwards", "one off", "channels last"]


def lay_out(x: np.ndarray, layout: str, guard: float = GUARD) -> tuple[np.ndarray, np.ndarray]:
    """Return the same elements at other places of a buffer that is full of guards elsewhere, and the buffer."""
    step = 2 if layout == "every second" else 1
    memory = np.full(step * x.size + 2 * 67 + 1, guard, x.dtype)
    start = 67 + (layout == "one off")
    flat = memory[start : start + step * x.size : step]
    if layout == "backwards":
        view = flat[::-1].reshape(x.shape)
    elif layout == "Fortran":
        view = flat.reshape(x.shape[::-1]).T
    elif layout == "channels last" and x.ndim == 4:
        view = flat.reshape([x.shape[i] for i in (0, 2, 3, 1)]).transpose(0, 3, 1, 2)
    else:
        view = flat.reshape(x.shape)
    if not np.shares_memory(view, memory) and x.size:  # no view of that shape: fall back on the simplest
        return lay_out(x, "C", guard)
    view[...] = x
    return view, memory


# Each case draws the arguments of some kernels, in float64

Call = tuple[Kernel, list[Any]]


def rows(draw: Callable, rng: np.random.Generator) -> tuple[int, ...]:
    lead = draw(st.lists(st.integers(0, 4), min_size=0, max_size=2))
    return (*lead, draw(SIZES))


def images(draw: Callable) -> tuple[int, ...]:
    return (draw(st.integers(0, 3)), draw(SIZES), draw(st.integers(1, 9)), draw(st.integers(1, 5)))


def softmax_calls(draw: Callable, rng: np.random.Generator) -> list[Call]:
    x = rng.standard_normal(rows(draw, rng)) * draw(st.sampled_from([1.0, 30.0, 1e4]))
    p = softmax.softmax(x)
    return [
        (softmax.softmax, [x]),
        (softmax.log_softmax, [x]),
        (softmax.softmax_grad, [rng.standard_normal(x.shape), p]),
    ]


def cross_entropy_calls(draw: Callable, rng: np.random.Generator) -> list[Call]:
    n, classes = draw(st.integers(0, 5)), draw(SIZES)
    x = rng.standard_normal((n, classes)) * draw(st.sampled_from([1.0, 1e3]))
    targets = rng.integers(0, classes, n).astype(draw(st.sampled_from([np.uint8, np.int32, np.int64])))
    _, top, total = softmax.cross_entropy(x, targets)
    return [
        (softmax.cross_entropy, [x, targets]),
        (softmax.cross_entropy_grad, [rng.standard_normal(n), x, targets, top, total]),
    ]


def activation_calls(draw: Callable, rng: np.random.Generator) -> list[Call]:
    shape = tuple(draw(st.lists(st.integers(0, 5) | SIZES, max_size=2))) if draw(st.booleans()) else images(draw)
    x, grad = 3 * rng.standard_normal(shape), rng.standard_normal(shape)
    kernels = [(activation.relu, activation.relu_grad), (activation.gelu, activation.gelu_grad)]
    return [call for f, g in kernels for call in ((f, [np.asarray(x)]), (g, [np.asarray(grad), np.asarray(x)]))]


def layer_norm_calls(draw: Callable, rng: np.random.Generator) -> list[Call]:
    shape = rows(draw, rng)
    x, grad, (weight, bias) = (
        2 + rng.standard_normal(shape),
        rng.standard_normal(shape),
        rng.standard_normal((2, shape[-1])),
    )
    _, mean, inv_std = normalization.layer_norm(x, weight, bias, 1e-2)
    return [
        (normalization.layer_norm, [x, weight, bias, 1e-2]),
        (normalization.layer_norm_grad, [grad, x, weight, mean, inv_std]),
    ]


def batch_norm_calls(draw: Callable, rng: np.random.Generator) -> list[Call]:
    n, *rest = images(draw)
    shape = (max(n, 1), *rest)
    x, grad = 2 + rng.standard_normal(shape), rng.standard_normal(shape)
    weight, bias = rng.standard_normal((2, shape[1]))
    _, mean, _, inv_std = normalization.batch_norm(x, weight, bias, 1e-2)
    return [
        (normalization.batch_norm, [x, weight, bias, 1e-2]),
        (normalization.batch_norm_grad, [grad, x, weight, mean, inv_std]),
        (normalization.batch_norm_weight_grad, [grad, x, mean, inv_std]),
    ]


def scale_shift_calls(draw: Callable, rng: np.random.Generator) -> list[Call]:
    x = rng.standard_normal(images(draw))
    scale, shift = rng.standard_normal((2, x.shape[1]))
    return [(normalization.scale_shift, [x, scale, shift, relu]) for relu in (False, True)]


def update_calls(draw: Callable, rng: np.random.Generator) -> list[Call]:
    shape = tuple(draw(st.lists(st.integers(0, 4) | SIZES, max_size=2)))
    p, grad, mean = (np.asarray(rng.standard_normal(shape)) for _ in range(3))
    decay, steps = draw(st.sampled_from([0.0, 0.1])), draw(st.integers(1, 1000))
    return [
        (update.sgd_update, [p.copy(), grad, mean.copy(), 0.1, 0.9, decay]),
        (update.adamw_update, [p, grad, mean, np.asarray(grad * grad), 0.1, (0.9, 0.99), 1e-3, decay, steps]),
        (update.square_sum, [p]),
    ]


CASES = {f.__name__.removesuffix("_calls"): f for f in (
    softmax_calls, cross_entropy_calls, activation_calls, layer_norm_calls, batch_norm_calls, scale_shift_calls,
    update_calls,
)}  # fmt: skip
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def run(kernel: Kernel, name: str, arguments: list[Any]) -> list[np.ndarray]:
    """Return the results of a kernel, or the arguments that it changed."""
    with backend(name):
        results = kernel(*arguments)
    changed = {update.sgd_update: [0, 2], update.adamw_update: [0, 2, 3]}.get(kernel)
    if changed:
        return [arguments[i] for i in changed]
    return list(results) if isinstance(results, tuple) else [np.asarray(results)]


def fresh(arguments: list[Any], dtype: Any) -> list[Any]:
    floats = [isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in arguments]
    return [a.astype(dtype) if is_float else a for a, is_float in zip(arguments, floats, strict=True)]


@each_case
@settings(max_examples=40)
@given(data=st.data())
def test_all_backends_compute_what_the_loops_compute(case, data, guarded_allocations):
    """For every shape, without elements too, and however the arguments lie in memory; nothing else is touched."""
    for kernel, arguments in case(data.draw, np.random.default_rng(data.draw(seeds))):
        expected = run(kernel, "naive", fresh(arguments, np.float64))
        for found, wanted in zip(run(kernel, "numpy", fresh(arguments, np.float64)), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9, err_msg=kernel.__name__)
        for name in BACKENDS:
            single = fresh(arguments, np.float32)
            layout = data.draw(st.sampled_from(LAYOUTS))
            laid = [lay_out(a, layout) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else (a, a) for a in single]
            run(kernel, name, [a.copy() if isinstance(a, np.ndarray) else a for a, _ in laid])  # compiled before
            with guarded_allocations():
                results = run(kernel, name, [view for view, _ in laid])
            for found, wanted in zip(results, expected, strict=True):
                size = np.abs(wanted).max(initial=1.0)
                np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5 * size, err_msg=f"{kernel} {name}")
                assert found.dtype == np.float32 or kernel is update.square_sum
            for (view, memory), before in zip(laid, single, strict=True):
                if isinstance(view, np.ndarray) and view.dtype == np.float32:
                    if not any(view is r for r in results):
                        np.testing.assert_array_equal(view, before)
                    assert (memory == GUARD).sum() == memory.size - view.size


@each_case
@settings(max_examples=10)
@given(data=st.data())
def test_results_do_not_depend_on_the_number_of_threads(case, data):
    """Not even in their last bit: sums are made of the same parts in the same order."""
    for kernel, arguments in case(data.draw, np.random.default_rng(data.draw(seeds))):
        single = [np.resize(a, (*a.shape[:-1], 40000)) if kernel is update.square_sum else a for a in arguments]
        results = []
        for threads in (1, 2, 3):
            set_num_threads(threads)
            try:
                results.append([r.tobytes() for r in run(kernel, "numba", fresh(single, np.float32))])
            finally:
                set_num_threads(1)
        assert results[0] == results[1] == results[2]


SPECIAL = st.sampled_from([0.0, -0.0, 1.0, -2.5, 100.0, -100.0, 1e18, -1e18, 1e-40, math.inf, -math.inf, math.nan])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy reports what it meets
@pytest.mark.parametrize(
    "kernel",
    [activation.relu, activation.relu_grad, activation.gelu, softmax.softmax, softmax.log_softmax],
    ids=repr,
)
@given(values=st.lists(SPECIAL, min_size=18, max_size=18))
@settings(max_examples=100)
def test_nan_and_infinity_appear_where_they_do_in_numpy(kernel, values):
    x = np.array(values, np.float32).reshape(2, 9)
    arguments = [x[::-1], x] if kernel is activation.relu_grad else [x]
    with backend("numpy"):
        expected = kernel(*arguments)
    for name in ("naive", "numba"):
        with backend(name):
            found = kernel(*arguments)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected), err_msg=name)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-30, err_msg=name)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_spoils_its_own_row_or_channel_only(bad):
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((2, 20), np.float32)
    x = rng.standard_normal((3, 20, 5, 7), np.float32)
    x[1, 4, 2, 3] = bad
    y, mean, var, inv_std = normalization.batch_norm(x, weight, bias, 1e-5)
    dx, dw, db = normalization.batch_norm_grad(x, np.ones_like(x), weight, np.zeros_like(mean), np.ones_like(mean))
    others = np.arange(20) != 4
    for result in (mean, var, inv_std, y.mean(axis=(0, 2, 3)), dx.mean(axis=(0, 2, 3)), dw, db):
        assert np.isfinite(result[others]).all()
    assert np.isnan(y[:, 4]).all()
    assert not np.isfinite(db[4])
    rows = x[:, :, 2, 3]
    y, mean, inv_std = normalization.layer_norm(rows, weight, bias, 1e-5)
    dx, _, _ = normalization.layer_norm_grad(rows, np.ones_like(rows), weight, np.zeros_like(mean), np.ones_like(mean))
    for result in (y, dx):
        assert not np.isfinite(result[1]).any()
        assert np.isfinite(result[[0, 2]]).all()


# How exact


@pytest.mark.parametrize(("name", "low", "high"), [("exp", -87.3, 88.37), ("exp2", -126.0, 127.4)])
def test_powers_are_exact_to_two_units_in_the_last_place(name, low, high):
    x = np.concatenate([np.linspace(low, high, 200_000), np.linspace(-1e-3, 1e-3, 1000)]).astype(np.float32)
    expected = getattr(np, name)(x.astype(np.float64))
    error = np.abs(power(name, x) - expected) / np.spacing(expected.astype(np.float32))
    assert error.max() <= 2


def test_powers_too_large_or_too_small_for_float32_are_infinite_or_zero():
    edges = np.array([-np.inf, -3e38, -1000, -88, 0, 88.8, 89.5, 130, 1e4, 3e38, np.inf, np.nan], np.float32)
    expected = np.array([0, 0, 0, 0, 1, *[np.inf] * 6, np.nan])
    np.testing.assert_array_equal(power("exp", edges), expected)
    np.testing.assert_array_equal(power("exp2", edges[[0, 1, 2, 4, 11]]), expected[[0, 1, 2, 4, 11]])


def power(name: str, x: np.ndarray) -> np.ndarray:
    """Apply one of the functions of vectors to an array."""
    from tinytorch.kernels.compiled import functions, jit, simd

    function, load_first, store_first, lanes = getattr(functions, name), simd.load_first, simd.store_first, simd.LANES

    @jit.jit
    def loop(x, out):
        for i in range(0, x.size, lanes):
            store_first(out, i, function(load_first(x, i, x.size - i)), x.size - i)

    out = np.empty_like(x)
    loop(x, out)
    return out


def test_gelu_and_its_slope_are_exact_also_where_they_are_nearly_0_or_nearly_linear():
    x = np.linspace(-20, 20, 200_001).astype(np.float32)
    ones = np.ones_like(x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(activation.gelu(x), activation.gelu(exact), rtol=3e-7, atol=3e-7)
    np.testing.assert_allclose(
        activation.gelu_grad(ones, x), activation.gelu_grad(np.ones_like(exact), exact), atol=1e-6
    )


@pytest.mark.parametrize("channels", [1, 16, 20])
def test_batch_statistics_are_exact_far_from_zero_and_for_millions_of_numbers(channels):
    """Mean 1000, standard deviation 1: sums of squares alone would leave no digit of the variance."""
    rng = np.random.default_rng(0)
    x = (1000 + rng.standard_normal((4, 500, 500, channels), np.float32)).transpose(0, 3, 1, 2)
    y, mean, var, _ = normalization.batch_norm(x, *np.ones((2, channels), np.float32), 0.0)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=(0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(var, exact.var(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3), dtype=np.float64), 1.0, atol=1e-4)


def test_cross_entropy_is_exact_for_scores_in_the_thousands():
    rng = np.random.default_rng(0)
    x = 5000 + rng.standard_normal((50, 33), np.float32)
    targets = rng.integers(0, 33, 50)
    losses, top, total = softmax.cross_entropy(x, targets)
    np.testing.assert_allclose(losses, softmax.cross_entropy(x.astype(np.float64), targets)[0], atol=1e-5)
    grad = softmax.cross_entropy_grad(np.ones(50, np.float32), x, targets, top, total)
    np.testing.assert_allclose(grad.sum(axis=1), 0, atol=1e-6)


# Where results lie


@pytest.mark.parametrize("kernel", [activation.relu, activation.gelu], ids=repr)
@pytest.mark.parametrize("layout", ["C", "Fortran", "channels last"])
def test_activations_keep_the_order_of_the_axes_in_memory(kernel, layout):
    """Otherwise each would turn images over, and the next convolution turn them back."""
    x, _ = lay_out(np.ones((2, 3, 4, 5), np.float32), layout)
    y = kernel(x)
    assert y.strides == x.strides
    grad = {activation.relu: activation.relu_grad, activation.gelu: activation.gelu_grad}[kernel](y, x)
    assert grad.strides == x.strides


@pytest.mark.parametrize("channels", [1, 3, 16, 20])
def test_normalized_images_have_their_channels_last_in_memory(channels):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, channels, 4, 5), np.float32)
    weight = rng.standard_normal(channels, np.float32)
    for y in (normalization.batch_norm(x, weight, weight, 1e-5)[0], normalization.scale_shift(x, weight, weight, True)):
        assert y.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("shape", [(40, 30), (30,)])
def test_parameters_that_are_views_are_updated_where_they_lie(shape):
    rng = np.random.default_rng(0)
    memory = rng.standard_normal((*shape, 2), np.float32)
    view, twin, grad = memory[..., 0], memory[..., 0].copy(), rng.standard_normal(shape, np.float32)
    for p in (view, twin):
        state = np.zeros((2, *shape), np.float32)
        update.adamw_update(p, grad, *state, 0.1, (0.9, 0.99), 1e-8, 0.1, 1)
        update.sgd_update(p, grad, state[0], 0.1, 0.9, 0.1)
    np.testing.assert_allclose(view, twin, rtol=1e-5)
