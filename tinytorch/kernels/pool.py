"""Max and average pooling of NCHW images over windows of k x k, without padding."""

from __future__ import annotations

import numpy as np

from tinytorch.kernels.backend import kernel
from tinytorch.kernels.conv import output_size


def _window(x: np.ndarray, kernel: int, stride: int, i: int, j: int) -> np.ndarray:
    """View element (i, j) of every window: (N, C, Ho, Wo)."""
    ho, wo = output_size(x.shape[2], kernel, stride, 0), output_size(x.shape[3], kernel, stride, 0)
    return x[:, :, i : i + stride * ho : stride, j : j + stride * wo : stride]


def _empty_result(shape: tuple[int, ...], kernel: int, stride: int, dtype: np.dtype) -> np.ndarray:
    n, c, h, w = shape
    return np.empty((n, c, output_size(h, kernel, stride, 0), output_size(w, kernel, stride, 0)), dtype)


def _offsets(kernel: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(kernel) for j in range(kernel)]


@kernel
def max_pool2d(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """Return the largest value of every window: (N, C, H, W) -> (N, C, Ho, Wo). NaN wins over every number."""
    best = _window(x, kernel, stride, 0, 0).copy()
    for i, j in _offsets(kernel)[1:]:
        np.maximum(best, _window(x, kernel, stride, i, j), out=best)
    return best


@max_pool2d.naive
def max_pool2d_naive(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """Look at each element of a window; keep the largest so far."""
    out = _empty_result(x.shape, kernel, stride, x.dtype)
    for n, c, y, z in np.ndindex(*out.shape):
        best = x[n, c, y * stride, z * stride]
        for i, j in _offsets(kernel):
            value = x[n, c, y * stride + i, z * stride + j]
            if value > best or value != value:  # NaN is the one number that differs from itself
                best = value
        out[n, c, y, z] = best
    return out


@kernel
def max_pool2d_grad(grad: np.ndarray, x: np.ndarray, y: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """Gradient of `max_pool2d`, whose result was y, for x: all of a window's goes to its first largest element.

    grad and y are (N, C, Ho, Wo), x and the result (N, C, H, W).
    Each element in turn takes what is left if it is the largest; the last one takes the rest (of windows with NaN too).
    """
    out = np.zeros(x.shape, grad.dtype)
    left = grad.copy()
    *others, last = _offsets(kernel)
    for i, j in others:
        taken = left * (_window(x, kernel, stride, i, j) == y)  # masks by product: np.where is several times slower
        left -= taken
        target = _window(out, kernel, stride, i, j)
        target += taken
    target = _window(out, kernel, stride, *last)
    target += left
    return out


@max_pool2d_grad.naive
def max_pool2d_grad_naive(grad: np.ndarray, x: np.ndarray, y: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """Go through each window until the largest element is found, or the window ends; that one takes the gradient."""
    out = np.zeros(x.shape, grad.dtype)
    for n, c, row, column in np.ndindex(*y.shape):
        for i, j in _offsets(kernel):
            place = n, c, row * stride + i, column * stride + j
            if x[place] == y[n, c, row, column]:
                break
        out[place] += grad[n, c, row, column]
    return out


@kernel
def avg_pool2d(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """Return the mean of every window: (N, C, H, W) -> (N, C, Ho, Wo)."""
    total = _window(x, kernel, stride, 0, 0).copy()
    for i, j in _offsets(kernel)[1:]:
        total += _window(x, kernel, stride, i, j)
    total /= kernel * kernel
    return total


@avg_pool2d.naive
def avg_pool2d_naive(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """Sum each window, element by element, and divide."""
    out = _empty_result(x.shape, kernel, stride, x.dtype)
    for n, c, y, z in np.ndindex(*out.shape):
        total = x.dtype.type(0)
        for i, j in _offsets(kernel):
            total += x[n, c, y * stride + i, z * stride + j]
        out[n, c, y, z] = total / (kernel * kernel)
    return out


@kernel
def avg_pool2d_grad(grad: np.ndarray, input_shape: tuple[int, ...], kernel: int, stride: int) -> np.ndarray:
    """Gradient of `avg_pool2d` for x, of `input_shape` (N, C, H, W): each element of a window gets 1/k^2 of its own.

    grad is (N, C, Ho, Wo).
    """
    out = np.zeros(input_shape, grad.dtype)
    share = grad / (kernel * kernel)
    for i, j in _offsets(kernel):
        target = _window(out, kernel, stride, i, j)
        target += share
    return out


@avg_pool2d_grad.naive
def avg_pool2d_grad_naive(grad: np.ndarray, input_shape: tuple[int, ...], kernel: int, stride: int) -> np.ndarray:
    """Hand each element of each window its share."""
    out = np.zeros(input_shape, grad.dtype)
    for n, c, y, z in np.ndindex(*grad.shape):
        for i, j in _offsets(kernel):
            out[n, c, y * stride + i, z * stride + j] += grad[n, c, y, z] / (kernel * kernel)
    return out
