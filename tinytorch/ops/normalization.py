"""Batch norm and layer norm, each one operation so that no intermediate is kept."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels.normalization import normalize, normalize_grad


class LayerNorm(Function):
    """(x - mean) / sqrt(var + eps) * weight + bias, over the last axis; weight and bias (D,).

    Source: Ba, Kiros & Hinton, "Layer normalization" (2016), section 3.
    """

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
        normalized, _, _, inv_std = normalize(x, (-1,), eps)
        ctx.save_for_backward(normalized, inv_std, weight)
        y = normalized * weight
        y += bias
        return y

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # db = sum g, dw = sum g * normalized, dx through mean and variance: see normalize_grad
        normalized, inv_std, weight = ctx.saved_tensors
        rows = grad_output.reshape(-1, weight.size)
        return (
            normalize_grad(grad_output * weight, normalized, inv_std, (-1,)) if ctx.needs_input_grad[0] else None,
            np.einsum("ij,ij->j", rows, normalized.reshape(rows.shape)),
            np.ones(len(rows), rows.dtype) @ rows,
            None,
        )


class BatchNorm2d(Function):
    """The same over batch and pixels, one mean and variance per channel: x (N, C, H, W), weight and bias (C,).

    The statistics in `running` = (mean, var, momentum) are updated in place, with the unbiased variance, as in PyTorch.
    Source: Ioffe & Szegedy, "Batch normalization" (2015), algorithm 1.
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
        normalized, mean, var, inv_std = normalize(x, (0, 2, 3), eps)
        ctx.save_for_backward(normalized, inv_std, weight)
        running_mean, running_var, momentum = running
        n = x.size // x.shape[1]
        running_mean += momentum * (mean.reshape(-1) - running_mean)
        running_var += momentum * (var.reshape(-1) * (n / max(n - 1, 1)) - running_var)
        y = normalized * weight[:, None, None]
        y += bias[:, None, None]
        return y

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # as for LayerNorm, with sums over batch and pixels
        normalized, inv_std, weight = ctx.saved_tensors
        scaled = grad_output * weight[:, None, None]
        return (
            normalize_grad(scaled, normalized, inv_std, (0, 2, 3)) if ctx.needs_input_grad[0] else None,
            (grad_output * normalized).sum(axis=(0, 2, 3)),
            grad_output.sum(axis=(0, 2, 3)),
            None,
            None,
        )
