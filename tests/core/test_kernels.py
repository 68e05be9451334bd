"""The kernels against loops that a reader can check by eye, in float64."""

import itertools
import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinytorch.kernels import activation, conv, normalization, pool, softmax

few = settings(max_examples=30)
seeds = st.integers(0, 2**32 - 1)
images = st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
rows = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5).map(lambda s: (*s[1:], s[0])) | st.just((0, 3))


def scattered(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers at every second place of an array, from an odd offset on: neither contiguous nor aligned."""
    memory = rng.standard_normal((*shape[:-1], 2 * shape[-1] + 3))
    return memory[..., 3::2][..., : shape[-1]]


def windows(shape: tuple[int, ...], kernel: tuple[int, int], stride: int, padding: int):
    """Yield (output position, place in the kernel, input position) for all of the pairs inside of the image."""
    h, w = shape[2:]
    for y, x in np.ndindex((h + 2 * padding - kernel[0]) // stride + 1, (w + 2 * padding - kernel[1]) // stride + 1):
        for i, j in np.ndindex(*kernel):
            r, c = y * stride + i - padding, x * stride + j - padding
            if 0 <= r < h and 0 <= c < w:
                yield (y, x), (i, j), (r, c)


@st.composite
def convolutions(draw):
    shape = draw(images)
    stride, padding, out_channels = draw(st.integers(1, 4)), draw(st.integers(0, 2)), draw(st.integers(1, 3))
    kernel = tuple(draw(st.integers(1, size + 2 * padding)) for size in shape[2:])
    rng = np.random.default_rng(draw(seeds))
    weight = scattered(rng, (out_channels, shape[1], *kernel))
    bias = scattered(rng, (out_channels,)) if draw(st.booleans()) else None
    return scattered(rng, shape), weight, bias, stride, padding, draw(st.sampled_from([1, 5000, 1 << 19]))


@few
@given(convolutions())
def test_convolution_and_its_gradients_equal_loops(case):
    """For every stride, padding and kernel that fits, and however many images make a block."""
    x, weight, bias, stride, padding, block_bytes = case
    with mock.patch.object(conv, "_BLOCK_BYTES", block_bytes):
        out = conv.conv2d(x, weight, bias, stride, padding)
        grad = np.random.default_rng(0).standard_normal(out.shape)
        x_grad = conv.conv2d_input_grad(grad, weight, x.shape, stride, padding)
        weight_grad = conv.conv2d_weight_grad(grad, x, weight.shape[2:], stride, padding)

    expected = np.zeros(out.shape) + (0.0 if bias is None else bias[:, None, None])
    expected_x, expected_weight = np.zeros(x.shape), np.zeros(weight.shape)
    assert out.shape[2:] == tuple(
        conv.output_size(n, k, stride, padding) for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)
    )
    for n, o in np.ndindex(len(x), len(weight)):
        for (y, z), (i, j), (r, c) in windows(x.shape, weight.shape[2:], stride, padding):
            expected[n, o, y, z] += weight[o, :, i, j] @ x[n, :, r, c]
            expected_x[n, :, r, c] += weight[o, :, i, j] * grad[n, o, y, z]
            expected_weight[o, :, i, j] += x[n, :, r, c] * grad[n, o, y, z]
    np.testing.assert_allclose(out, expected, atol=1e-12)
    np.testing.assert_allclose(x_grad, expected_x, atol=1e-12)
    np.testing.assert_allclose(weight_grad, expected_weight, atol=1e-12)


@few
@given(shape=images, stride=st.integers(1, 4), seed=seeds, data=st.data())
def test_pooling_and_its_gradients_equal_loops(shape, stride, seed, data):
    """The first of equal elements wins, in the forward pass and in the backward pass."""
    kernel = data.draw(st.integers(1, min(shape[2:])))
    rng = np.random.default_rng(seed)
    x = np.round(scattered(rng, shape))  # many ties
    largest = pool.max_pool2d(x, kernel, stride)
    mean = pool.avg_pool2d(x, kernel, stride)
    grad = scattered(rng, largest.shape)
    expected, winner, total = np.full(largest.shape, -np.inf), {}, np.zeros(largest.shape)
    mean_grad, max_grad = np.zeros(shape), np.zeros(shape)
    for n, ch in np.ndindex(shape[:2]):
        for (y, z), _, (r, c) in windows(shape, (kernel, kernel), stride, 0):
            total[n, ch, y, z] += x[n, ch, r, c]
            mean_grad[n, ch, r, c] += grad[n, ch, y, z] / kernel**2
            if x[n, ch, r, c] > expected[n, ch, y, z]:
                expected[n, ch, y, z], winner[n, ch, y, z] = x[n, ch, r, c], (r, c)
    for (n, ch, y, z), (r, c) in winner.items():
        max_grad[n, ch, r, c] += grad[n, ch, y, z]
    np.testing.assert_array_equal(largest, expected)
    np.testing.assert_allclose(mean, total / kernel**2, atol=1e-12)
    np.testing.assert_allclose(pool.max_pool2d_grad(grad, x, largest, kernel, stride), max_grad, atol=1e-12)
    np.testing.assert_allclose(pool.avg_pool2d_grad(grad, shape, kernel, stride), mean_grad, atol=1e-12)


@pytest.mark.parametrize("order", list(itertools.permutations([1.0, np.nan, -np.inf, np.inf])))
def test_nan_wins_over_every_number_in_max_pooling(order):
    x = np.array(order).reshape(1, 1, 2, 2)
    best = pool.max_pool2d(x, 2, 2)
    assert np.isnan(best).all()
    assert pool.max_pool2d_grad(np.ones_like(best), x, best, 2, 2).sum() == 1.0  # and its gradient is not lost


def naive_softmax(row: np.ndarray) -> list[float]:
    powers = [math.exp(v - max(row)) for v in row]
    return [p / math.fsum(powers) for p in powers]


@few
@given(shape=rows, seed=seeds, size=st.sampled_from([1.0, 30.0, 1e4]))
def test_softmax_equals_loops_also_for_scores_that_overflow_exp(shape, seed, size):
    rng = np.random.default_rng(seed)
    x, grad = size * scattered(rng, shape), scattered(rng, shape)
    p, log_p, x_grad = softmax.softmax(x), softmax.log_softmax(x), softmax.softmax_grad(grad, softmax.softmax(x))
    assert p.shape == log_p.shape == x_grad.shape == shape
    for at in np.ndindex(shape[:-1]):
        wanted, g = naive_softmax(x[at]), grad[at]
        np.testing.assert_allclose(p[at], wanted, rtol=1e-10, atol=1e-300)
        shift = max(x[at])
        log_sum = shift + math.log(math.fsum(math.exp(v - shift) for v in x[at]))
        np.testing.assert_allclose(log_p[at], [v - log_sum for v in x[at]], rtol=1e-12, atol=1e-10)
        jacobian = [[p_i * ((i == j) - p_j) for i, p_i in enumerate(wanted)] for j, p_j in enumerate(wanted)]
        np.testing.assert_allclose(x_grad[at], [math.fsum(np.multiply(row, g)) for row in jacobian], atol=1e-12)


@few
@given(shape=rows, seed=seeds, block=st.sampled_from([1, 7, 1 << 14]))
def test_gelu_equals_its_formula_whatever_the_block(shape, seed, block):
    rng = np.random.default_rng(seed)
    x, grad = 3 * scattered(rng, shape), scattered(rng, shape)
    with mock.patch.object(activation, "_BLOCK", block):
        y, x_grad = activation.gelu(x), activation.gelu_grad(grad, x)
    c = math.sqrt(2 / math.pi)
    for at in np.ndindex(shape):
        v = float(x[at])
        t = math.tanh(c * (v + 0.044715 * v**3))
        slope = 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * c * (1 + 3 * 0.044715 * v * v)
        assert y[at] == pytest.approx(0.5 * v * (1 + t), abs=1e-12)
        assert x_grad[at] == pytest.approx(grad[at] * slope, abs=1e-12)


@pytest.mark.parametrize("kernel", [activation.gelu, softmax.softmax, softmax.log_softmax])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elementwise_kernels_keep_dtype_and_input(kernel, dtype):
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(dtype)
    before = x.copy()
    assert kernel(x).dtype == dtype
    np.testing.assert_array_equal(x, before)


@few
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), seed=seeds)
def test_normalization_and_its_gradients_equal_loops(shape, seed):
    """Batch norm over batch and pixels, and layer norm over the last axis, which is batch norm of other groups."""
    rng, eps = np.random.default_rng(seed), 1e-3
    x, grad = 5 + scattered(rng, shape), scattered(rng, shape)
    weight, bias = rng.standard_normal((2, shape[1]))
    y, mean, var, inv_std = normalization.batch_norm(x, weight, bias, eps)
    dx, dw, db = normalization.batch_norm_grad(grad, x, weight, mean, inv_std)
    for c in range(shape[1]):
        v, g = x[:, c].reshape(-1).tolist(), grad[:, c].reshape(-1).tolist()
        n, m = len(v), math.fsum(v) / len(v)
        variance = math.fsum((a - m) ** 2 for a in v) / n
        s = 1 / math.sqrt(variance + eps)
        z = [(a - m) * s for a in v]
        jacobian = [[weight[c] * s * ((i == j) - 1 / n - z[i] * z[j] / n) for j in range(n)] for i in range(n)]
        assert (mean[c], var[c], inv_std[c]) == pytest.approx((m, variance, s), rel=1e-9, abs=1e-12)
        np.testing.assert_allclose(y[:, c].reshape(-1), [a * weight[c] + bias[c] for a in z], atol=1e-9)
        np.testing.assert_allclose(dx[:, c].reshape(-1), [math.fsum(np.multiply(r, g)) for r in jacobian], atol=1e-9)
        assert (dw[c], db[c]) == pytest.approx((math.fsum(np.multiply(z, g)), math.fsum(g)), rel=1e-9, abs=1e-9)

    ones, zeros = np.ones(x[0].size), np.zeros(x[0].size)
    rows, row_grads = x.reshape(shape[0], -1), grad.reshape(shape[0], -1)
    as_groups = rows.reshape(1, shape[0], -1, 1), row_grads.reshape(1, shape[0], -1, 1)
    by_row = normalization.batch_norm(as_groups[0], np.ones(shape[0]), np.zeros(shape[0]), eps)
    y, mean, inv_std = normalization.layer_norm(rows, ones, zeros, eps)
    for found, expected in zip((y, mean, inv_std), (by_row[0].reshape(rows.shape), by_row[1], by_row[3]), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)
    weight = rng.standard_normal(len(ones))
    dx, dw, db = normalization.layer_norm_grad(row_grads, rows, weight, mean, inv_std)
    scaled = (row_grads * weight).reshape(as_groups[1].shape)
    expected, _, _ = normalization.batch_norm_grad(scaled, as_groups[0], np.ones(shape[0]), mean, inv_std)
    np.testing.assert_allclose(dx, expected.reshape(rows.shape), atol=1e-9)
    np.testing.assert_allclose(dw, (row_grads * y).sum(axis=0), atol=1e-9)
    np.testing.assert_allclose(db, row_grads.sum(axis=0), atol=1e-9)
