"""Convolution and pooling of NCHW images."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels import conv, pool


class Conv2d(Function):
    """Cross-correlation of x (N, C, H, W) with weight (O, C, kh, kw), plus bias (O,) or None -> (N, O, Ho, Wo)."""

    @staticmethod
    def forward(
        ctx: Context, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: int = 1, padding: int = 0
    ) -> np.ndarray:
        ctx.save_for_backward(x, weight, stride, padding)
        return conv.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # y[p] = sum_q w[q] x[p + q]: dx[r] = sum_q w[q] g[r - q], dw[q] = sum_p x[p + q] g[p], db = sum_p g[p]
        x, weight, stride, padding = ctx.saved_tensors
        g = grad_output
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        return (
            conv.conv2d_input_grad(g, weight, x.shape, stride, padding) if needs_x else None,
            conv.conv2d_weight_grad(g, x, weight.shape[2:], stride, padding) if needs_weight else None,
            conv.conv2d_bias_grad(g) if needs_bias else None,
            None,
            None,
        )[: len(ctx.needs_input_grad)]


class MaxPool2d(Function):
    """The largest element of every k x k window: x (N, C, H, W) -> (N, C, Ho, Wo)."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, kernel_size: int, stride: int) -> np.ndarray:
        y = pool.max_pool2d(x, kernel_size, stride)
        ctx.save_for_backward(x, y, kernel_size, stride)
        return y

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None, None]:
        # 1 for the first largest element, 0 for the others
        return (pool.max_pool2d_grad(grad_output, *ctx.saved_tensors), None, None)


class AvgPool2d(Function):
    """The mean of every k x k window: x (N, C, H, W) -> (N, C, Ho, Wo)."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, kernel_size: int, stride: int) -> np.ndarray:
        ctx.save_for_backward(x.shape, kernel_size, stride)
        return pool.avg_pool2d(x, kernel_size, stride)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None, None]:
        # 1/k^2 for every element of a window
        return (pool.avg_pool2d_grad(grad_output, *ctx.saved_tensors), None, None)
