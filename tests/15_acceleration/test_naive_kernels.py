"""The loops of the naive kernels, the oracle of the others, against NumPy's versions, which tests/core checks too."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch.kernels
from tinytorch import backend
from tinytorch.kernels import conv, pool, warmup
from tinytorch.kernels.backend import BACKENDS, Kernel

few = settings(max_examples=30)
seeds = st.integers(0, 2**32 - 1)
images = st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))


def all_kernels() -> list[Kernel]:
    modules = [
        m.name for m in pkgutil.iter_modules(tinytorch.kernels.__path__) if m.name not in ("compiled", "__main__")
    ]
    found = [vars(importlib.import_module(f"tinytorch.kernels.{name}")).values() for name in modules]
    return list({id(k): k for values in found for k in values if isinstance(k, Kernel)}.values())


@pytest.mark.parametrize("kernel", all_kernels(), ids=repr)
@pytest.mark.parametrize("name", BACKENDS)
def test_every_kernel_has_a_version_for_every_backend_with_the_same_arguments(kernel, name):
    """So that they may be named."""
    arguments, expected = (inspect.signature(kernel.version(n)).parameters.values() for n in (name, "numpy"))
    assert [(p.name, p.default) for p in arguments] == [(p.name, p.default) for p in expected]


def test_every_kernel_has_a_case_for_the_tests_of_where_it_reads_and_writes():
    cases = importlib.import_module("tests.15_acceleration.kernel_cases").CASES
    assert set(cases) == set(all_kernels())


def test_every_kernel_is_warmed_up():
    assert {function for function, _ in warmup.calls() if isinstance(function, Kernel)} == set(all_kernels())


def agree(kernel: Kernel, *arguments) -> np.ndarray:
    """Return the naive result for float64; NumPy has to agree, and for float32 all three."""
    expected = kernel.version("naive")(*arguments)
    np.testing.assert_allclose(kernel.version("numpy")(*arguments), expected, atol=1e-12)
    single = [a.astype(np.float32) if isinstance(a, np.ndarray) else a for a in arguments]
    for name in BACKENDS:
        with backend(name):
            out = kernel(*single)
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-4, err_msg=name)
    return expected


@few
@given(
    shape=images,
    out_channels=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    seed=seeds,
    data=st.data(),
)
def test_convolution_and_its_gradients(shape, out_channels, stride, padding, seed, data):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    sides = tuple(data.draw(st.integers(1, n + 2 * padding)) for n in shape[2:])
    weight = rng.standard_normal((out_channels, shape[1], *sides))
    bias = rng.standard_normal(out_channels) if data.draw(st.booleans()) else None
    grad = rng.standard_normal(agree(conv.conv2d, x, weight, bias, stride, padding).shape)
    agree(conv.conv2d_input_grad, grad, weight, shape, stride, padding)
    agree(conv.conv2d_weight_grad, grad, x, sides, stride, padding)
    agree(conv.conv2d_bias_grad, grad)


@few
@given(shape=images, stride=st.integers(1, 3), seed=seeds, data=st.data())
def test_pooling_and_its_gradients_with_many_equal_numbers(shape, stride, seed, data):
    rng = np.random.default_rng(seed)
    size = data.draw(st.integers(1, min(shape[2:])))
    x = np.round(rng.standard_normal(shape))
    y = agree(pool.max_pool2d, x, size, stride)
    grad = rng.standard_normal(y.shape)
    agree(pool.max_pool2d_grad, grad, x, y, size, stride)
    agree(pool.avg_pool2d, x, size, stride)
    agree(pool.avg_pool2d_grad, grad, shape, size, stride)


@few
@given(values=st.lists(st.sampled_from([1.0, 2.0, np.nan, np.inf, -np.inf]), min_size=9, max_size=9))
def test_nan_and_infinity_are_pooled_alike(values):
    """And a window's gradient goes to the same element: the last one, where NaN leaves none that equals the largest."""
    x = np.array(values).reshape(1, 1, 3, 3)
    y = agree(pool.max_pool2d, x, 2, 1)
    assert np.isnan(y).any() == np.isnan(x).any()
    agree(pool.max_pool2d_grad, np.arange(1.0, 5.0).reshape(1, 1, 2, 2), x, y, 2, 1)


def test_results_whose_channels_lie_last_can_be_used_by_every_backend():
    """The compiled kernels return such; then another backend may go on with them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 5, 3), np.float32).transpose(0, 3, 1, 2)
    weight = rng.standard_normal((4, 3, 3, 3), np.float32)
    for name in BACKENDS:
        with backend(name):
            y = conv.conv2d(x, weight, None, 1, 1)
        for other in BACKENDS:
            with backend(other):
                z = pool.max_pool2d(y, 2, 2)
                back = pool.max_pool2d_grad(z, y, z, 2, 2)
                back = conv.conv2d_input_grad(back, weight, x.shape, 1, 1)
            if name == other == "naive":
                first = back
            np.testing.assert_allclose(back, first, rtol=1e-4, atol=1e-4)
