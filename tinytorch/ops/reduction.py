"""Sums, means and maxima over axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.autograd import Context, Function

Axis = int | tuple[int, ...] | None
# x is Any in each forward: NumPy 2.5's types refuse a `keepdims` that is not a literal


def _expanded(grad: np.ndarray, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> np.ndarray:
    """View a reduced gradient in the shape of the input."""
    if axis is not None and not keepdims:
        grad = np.expand_dims(grad, axis)
    return np.broadcast_to(grad, shape)


class Sum(Function):
    """Sum over `axis` (all axes if None)."""

    @staticmethod
    def forward(ctx: Context, x: Any, axis: Axis = None, keepdims: bool = False) -> np.ndarray:
        ctx.save_for_backward(x.shape, axis, keepdims)
        return np.asarray(x.sum(axis=axis, keepdims=keepdims))

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None, None]:
        # every summand has derivative 1
        shape, axis, keepdims = ctx.saved_tensors
        return (_expanded(grad_output, shape, axis, keepdims), None, None)


class Mean(Function):
    """Arithmetic mean over `axis` (all axes if None)."""

    @staticmethod
    def forward(ctx: Context, x: Any, axis: Axis = None, keepdims: bool = False) -> np.ndarray:
        y = np.asarray(x.mean(axis=axis, keepdims=keepdims))
        ctx.save_for_backward(x.shape, axis, keepdims, max(y.size, 1) / max(x.size, 1))
        return y

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None, None]:
        # every one of n elements has derivative 1/n
        shape, axis, keepdims, share = ctx.saved_tensors
        return (_expanded(grad_output * share, shape, axis, keepdims), None, None)


class Max(Function):
    """Largest element over `axis` (all axes if None); equal elements share the gradient, as in `torch.amax`."""

    @staticmethod
    def forward(ctx: Context, x: Any, axis: Axis = None, keepdims: bool = False) -> np.ndarray:
        y = np.asarray(x.max(axis=axis, keepdims=keepdims))
        ctx.save_for_backward(x, y, axis, keepdims)
        return y

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None, None]:
        # 1/k for each of the k largest elements, 0 for the others
        x, y, axis, keepdims = ctx.saved_tensors
        largest = (x == _expanded(y, x.shape, axis, keepdims)).astype(grad_output.dtype)
        largest /= largest.sum(axis=axis, keepdims=True)
        return (largest * _expanded(grad_output, x.shape, axis, keepdims), None, None)
