"""Batch norm and layer norm, each one operation."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels.normalization import (
    batch_norm,
    batch_norm_grad,
    batch_norm_weight_grad,
    layer_norm,
    layer_norm_grad,
    scale_shift,
)


class LayerNorm(Function):
    """(x - mean) / sqrt(var + eps) * weight + bias, over the last axis; weight and bias (D,).

    Source: Ba, Kiros & Hinton, "Layer normalization" (2016), section 3.
    """

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
        y, mean, inv_std = layer_norm(x, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, inv_std)
        return y

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # db = sum g, dw = sum g n, dx = (g w - mean(g w) - n mean(g w n)) / std with n = (x - mean) / std
        return *layer_norm_grad(grad_output, *ctx.saved_tensors), None


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
        y, mean, var, inv_std = batch_norm(x, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, inv_std)
        running_mean, running_var, momentum = running
        n = x.size // x.shape[1]
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * (n / max(n - 1, 1)) - running_var)
        return y

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # as for LayerNorm, with sums over batch and pixels
        return *batch_norm_grad(grad_output, *ctx.saved_tensors), None, None


class FrozenBatchNorm2d(Function):
    """Batch norm with statistics that stand still, the running ones: a scale and a shift for each channel."""

    @staticmethod
    def forward(
        ctx: Context,
        x: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray,
        eps: float,
        running: tuple[np.ndarray, np.ndarray],
    ) -> np.ndarray:
        mean, var = running
        inv_std = 1.0 / np.sqrt(var + var.dtype.type(eps))
        scale = weight * inv_std
        ctx.save_for_backward(x, scale, mean, inv_std)
        return scale_shift(x, scale, bias - scale * mean, False)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # dx = g w / std, dw = sum g (x - mean) / std, db = sum g
        x, scale, mean, inv_std = ctx.saved_tensors
        dx = scale_shift(grad_output, scale, np.zeros_like(scale), False) if ctx.needs_input_grad[0] else None
        return dx, *batch_norm_weight_grad(grad_output, x, mean, inv_std), None, None
