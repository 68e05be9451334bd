"""Nonlinearities and dropout."""

from __future__ import annotations

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels.activation import gelu, gelu_grad, relu, relu_grad
from tinytorch.kernels.softmax import softmax, softmax_grad


class ReLU(Function):
    """max(x, 0)."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray) -> np.ndarray:
        y = relu(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray]:
        # 1 where x > 0, else 0 (also at x = 0, as in PyTorch)
        (y,) = ctx.saved_tensors
        return (relu_grad(grad_output, y),)


class GELU(Function):
    """x Phi(x), tanh approximation."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray) -> np.ndarray:
        ctx.save_for_backward(x)
        return gelu(x)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray]:
        # the derivative stands in the kernel: 0.5 (1 + t) + 0.5 x (1 - t^2) du/dx with t = tanh(u(x))
        (x,) = ctx.saved_tensors
        return (gelu_grad(grad_output, x),)


class Softmax(Function):
    """p_i = exp(x_i) / sum_j exp(x_j), over the last axis."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray) -> np.ndarray:
        p = softmax(x)
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray]:
        # dp_i/dx_j = p_i * ((i == j) - p_j), contracted with grad_output
        (p,) = ctx.saved_tensors
        return (softmax_grad(grad_output, p),)


class Dropout(Function):
    """Zero each element with probability p, scale the others by 1 / (1 - p): the expectation stays x.

    Source: Srivastava et al., "Dropout", JMLR 15 (2014); the scaling at training time is section 10.
    """

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, p: float, rng: np.random.Generator) -> np.ndarray:
        keep = (rng.random(x.shape, dtype=np.float32) >= p).astype(x.dtype)
        keep *= 1.0 / (1.0 - p) if p < 1.0 else 0.0
        ctx.save_for_backward(keep)
        return x * keep

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None, None]:
        # y = x * keep
        (keep,) = ctx.saved_tensors
        return (grad_output * keep, None, None)
