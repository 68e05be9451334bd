"""Max and average pooling of NCHW images over windows of k x k, without padding."""

from __future__ import annotations

import numpy as np

from tinytorch.kernels.conv import output_size


def _window(x: np.ndarray, kernel: int, stride: int, i: int, j: int) -> np.ndarray:
    """View element (i, j) of every window: (N, C, Ho, Wo)."""
    ho, wo = output_size(x.shape[2], kernel, stride, 0), output_size(x.shape[3], kernel, stride, 0)
    return x[:, :, i : i + stride * ho : stride, j : j + stride * wo : stride]


def _offsets(kernel: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(kernel) for j in range(kernel)]


def max_pool2d(x: np.ndarray, kernel: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest value of every window and which of its k*k elements it was (the first one wins a tie).

    NaN wins over every number, as in NumPy.
    """
    best = _window(x, kernel, stride, 0, 0).copy()
    index = np.zeros(best.shape, np.uint8 if kernel < 16 else np.intp)
    for at, (i, j) in enumerate(_offsets(kernel)[1:], start=1):
        candidate = _window(x, kernel, stride, i, j)
        better = ~(candidate <= best) & (best == best)  # NaN is the value that differs from itself
        np.copyto(best, candidate, where=better)
        index[better] = at
    return best, index


def max_pool2d_grad(
    grad: np.ndarray, index: np.ndarray, input_shape: tuple[int, ...], kernel: int, stride: int
) -> np.ndarray:
    """Gradient of `max_pool2d` for x: all of a window's gradient goes to the element that won."""
    out = np.zeros(input_shape, grad.dtype)
    for at, (i, j) in enumerate(_offsets(kernel)):
        target = _window(out, kernel, stride, i, j)
        target += grad * (index == at)
    return out


def avg_pool2d(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """Return the mean of every window: (N, C, Ho, Wo)."""
    total = _window(x, kernel, stride, 0, 0).copy()
    for i, j in _offsets(kernel)[1:]:
        total += _window(x, kernel, stride, i, j)
    total /= kernel * kernel
    return total


def avg_pool2d_grad(grad: np.ndarray, input_shape: tuple[int, ...], kernel: int, stride: int) -> np.ndarray:
    """Gradient of `avg_pool2d` for x: every element of a window gets 1/k^2 of its gradient."""
    out = np.zeros(input_shape, grad.dtype)
    share = grad / (kernel * kernel)
    for i, j in _offsets(kernel):
        target = _window(out, kernel, stride, i, j)
        target += share
    return out
