"""Matrix products: the operations that cost the most."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels import matmul as kernels
from tinytorch.ops.elementwise import unbroadcast


class MatMul(Function):
    """a @ b, with NumPy's rules for more than two axes, and for one: (..., n, k) @ (..., k, m) -> (..., n, m)."""

    @staticmethod
    def forward(ctx: Context, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        ctx.save_for_backward(a, b)
        y = kernels.matmul(a[None, :] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b)
        y = y[..., 0, :] if a.ndim == 1 else y
        return np.asarray(y[..., 0] if b.ndim == 1 else y)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        # dA = G B^T, dB = A^T G
        a, b = ctx.saved_tensors
        a2, b2 = (a[None, :] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        g = grad_output[..., None] if b.ndim == 1 else grad_output
        g = g[..., None, :] if a.ndim == 1 else g
        needs_a, needs_b = ctx.needs_input_grad
        grad_a = unbroadcast(kernels.matmul(g, b2.swapaxes(-1, -2)), a2.shape).reshape(a.shape) if needs_a else None
        grad_b = unbroadcast(kernels.matmul(a2.swapaxes(-1, -2), g), b2.shape).reshape(b.shape) if needs_b else None
        return grad_a, grad_b


class Linear(Function):
    """x W^T + b over the last axis: x (..., in), weight (out, in), bias (out,) or None -> (..., out)."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        ctx.save_for_backward(x, weight)
        rows = x.reshape(-1, x.shape[-1])  # one large product instead of one for each batch entry
        return kernels.linear(rows, weight, bias).reshape(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # dx = G W, dW = G^T x, db = sum of G over all rows
        x, weight = ctx.saved_tensors
        g = grad_output.reshape(-1, weight.shape[0])
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            kernels.matmul(g, weight).reshape(x.shape) if needs_x else None,
            kernels.matmul(g.T, x.reshape(-1, x.shape[-1])) if needs_weight else None,
            # a product with ones sums rows faster than sum(axis=0)
            kernels.matmul(np.ones((1, len(g)), g.dtype), g)[0] if needs_bias else None,
        )
