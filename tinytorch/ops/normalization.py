"""Batch norm and layer norm, each one operation: of what lies between, only the normalized input and 1 / std stay."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels.normalization import group_dot, group_sum, normalize, normalize_grad


class LayerNorm(Function):
    """(x - mean) / sqrt(var + eps) * weight + bias, over the last axis; weight and bias (D,).

    Source: Ba, Kiros & Hinton, "Layer normalization" (2016), section 3.
    """

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
        normalized, _, _, inv_std = normalize(x.reshape(1, -1, weight.size), eps)
        ctx.save_for_backward(normalized, inv_std, weight)
        y = normalized * weight
        y += bias
        return y.reshape(x.shape)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # db = sum g, dw = sum g * normalized, dx through mean and variance: see normalize_grad
        normalized, inv_std, weight = ctx.saved_tensors
        g = grad_output.reshape(normalized.shape)
        dx = None
        if ctx.needs_input_grad[0]:
            scaled = g * weight
            means = group_sum(scaled) / weight.size, group_dot(scaled, normalized) / weight.size
            dx = normalize_grad(scaled, normalized, inv_std, *means).reshape(grad_output.shape)
        dw = np.einsum("ij,ij->j", g[0], normalized[0])
        return dx, dw, np.ones(g.shape[1], g.dtype) @ g[0], None


class BatchNorm2d(Function):
    """The same over batch and pixels, one mean and variance per channel: x (N, C, H, W), weight and bias (C,).

    With `running` = (mean, var, momentum), the running statistics are updated in place (the variance unbiased, as in
    PyTorch). Source: Ioffe & Szegedy, "Batch normalization" (2015), algorithm 1.
    """

    @staticmethod
    def forward(
        ctx: Context,
        x: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray,
        eps: float,
        running: tuple[np.ndarray, np.ndarray, float],
    ) -> np.ndarray:
        normalized, mean, var, inv_std = normalize(x.reshape(*x.shape[:2], -1), eps)
        ctx.save_for_backward(normalized, inv_std, weight)
        running_mean, running_var, momentum = running
        n = x.size // x.shape[1]
        running_mean += momentum * (mean[:, 0] - running_mean)
        running_var += momentum * (var[:, 0] * (n / max(n - 1, 1)) - running_var)
        y = normalized * weight[:, None]
        y += bias[:, None]
        return y.reshape(x.shape)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # as for LayerNorm, with sums over batch and pixels; the weight is one number per group and moves out of them
        normalized, inv_std, weight = ctx.saved_tensors
        g = grad_output.reshape(normalized.shape)
        dw, db, count = group_dot(g, normalized), group_sum(g), g.dtype.type(g.size // weight.size)
        dx = None
        if ctx.needs_input_grad[0]:
            scale = weight[:, None] * inv_std
            dx = normalize_grad(g, normalized, scale, db / count, dw / count).reshape(grad_output.shape)
        return dx, dw[:, 0], db[:, 0], None, None
