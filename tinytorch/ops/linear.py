"""Matrix products: the operations that cost the most."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.ops.elementwise import unbroadcast


class MatMul(Function):
    """a @ b, with NumPy's rules for more than two axes: (..., n, k) @ (..., k, m) -> (..., n, m)."""

    @staticmethod
    def forward(ctx: Context, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        ctx.save_for_backward(a, b)
        return np.asarray(a @ b)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        # dA = G B^T, dB = A^T G
        a, b = ctx.saved_tensors
        a2, b2 = (a[None, :] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        g = grad_output[..., None] if b.ndim == 1 else grad_output
        g = g[..., None, :] if a.ndim == 1 else g
        needs_a, needs_b = ctx.needs_input_grad
        grad_a = unbroadcast(g @ b2.swapaxes(-1, -2), a2.shape).reshape(a.shape) if needs_a else None
        grad_b = unbroadcast(a2.swapaxes(-1, -2) @ g, b2.shape).reshape(b.shape) if needs_b else None
        return grad_a, grad_b


class Linear(Function):
    """x W^T + b over the last axis: x (..., in), weight (out, in), bias (out,) or None -> (..., out)."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        ctx.save_for_backward(x, weight)
        y = x.reshape(-1, x.shape[-1]) @ weight.T  # one large product instead of one for each batch entry
        if bias is not None:
            y += bias
        return y.reshape(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # dx = G W, dW = G^T x, db = sum of G over all rows
        x, weight = ctx.saved_tensors
        g = grad_output.reshape(-1, weight.shape[0])
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            (g @ weight).reshape(x.shape) if needs_x else None,
            g.T @ x.reshape(-1, x.shape[-1]) if needs_weight else None,
            np.ones(len(g), g.dtype) @ g if needs_bias else None,  # a BLAS product sums rows faster than sum(axis=0)
        )
