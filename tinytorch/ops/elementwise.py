"""Arithmetic element by element, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinytorch.autograd import Context, Function


def unbroadcast(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum a gradient over the axes along which an input of `shape` was repeated.

    >>> unbroadcast(np.ones((2, 3)), (3,))
    array([2., 2., 2.])
    """
    if grad.shape == shape:
        return grad
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and grad.shape[i] != 1)
    return grad.sum(axis=repeated, keepdims=True) if repeated else grad


def _gradients(ctx: Context, inputs: tuple[Any, ...], *derivatives: Callable[[], np.ndarray]) -> tuple[Any, ...]:
    """Evaluate the derivatives that are needed, each in the shape of its input (which may be a Python number)."""
    return tuple(
        unbroadcast(derivative(), np.shape(x)) if needed else None
        for derivative, x, needed in zip(derivatives, inputs, ctx.needs_input_grad, strict=True)
    )


class Add(Function):
    """a + b."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> np.ndarray:
        ctx.save_for_backward(a, b)
        return a + b

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # d(a+b)/da = d(a+b)/db = 1
        return _gradients(ctx, ctx.saved_tensors, lambda: grad_output, lambda: grad_output)


class Sub(Function):
    """a - b."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> np.ndarray:
        ctx.save_for_backward(a, b)
        return a - b

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # d(a-b)/da = 1, d(a-b)/db = -1
        return _gradients(ctx, ctx.saved_tensors, lambda: grad_output, lambda: -grad_output)


class Mul(Function):
    """a * b."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> np.ndarray:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # d(ab)/da = b, d(ab)/db = a
        a, b = ctx.saved_tensors
        return _gradients(ctx, (a, b), lambda: grad_output * b, lambda: grad_output * a)


class Div(Function):
    """a / b."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> np.ndarray:
        ctx.save_for_backward(a, b)
        return a / b

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # d(a/b)/da = 1/b, d(a/b)/db = -a/b^2
        a, b = ctx.saved_tensors
        return _gradients(ctx, (a, b), lambda: grad_output / b, lambda: -grad_output * a / (b * b))


class Maximum(Function):
    """max(a, b); a tie shares the gradient equally, as in PyTorch."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> np.ndarray:
        ctx.save_for_backward(a, b)
        return np.maximum(a, b)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # 1 where the input is the larger one, 1/2 where both are equal
        a, b = ctx.saved_tensors
        tie = np.equal(a, b) * grad_output.dtype.type(0.5)
        return _gradients(ctx, (a, b), lambda: grad_output * ((a > b) + tie), lambda: grad_output * ((b > a) + tie))


class Neg(Function):
    """-x."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray) -> np.ndarray:
        return -x

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray]:
        return (-grad_output,)


class Pow(Function):
    """x ** exponent, the exponent a Python number."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, exponent: float) -> np.ndarray:
        ctx.save_for_backward(x, exponent)
        return x**exponent

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray | None, ...]:
        # d(x^n)/dx = n x^(n-1); x^0 is constant, also at x = 0 where x^-1 is not finite
        x, n = ctx.saved_tensors
        return (grad_output * (n * x ** (n - 1)) if n != 0 else np.zeros_like(grad_output), None)


class Exp(Function):
    """e^x."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray) -> np.ndarray:
        y: np.ndarray = np.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray]:
        (y,) = ctx.saved_tensors
        return (grad_output * y,)


class Log(Function):
    """Natural logarithm."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray) -> np.ndarray:
        ctx.save_for_backward(x)
        return np.log(x)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray]:
        # d(log x)/dx = 1/x
        (x,) = ctx.saved_tensors
        return (grad_output / x,)


class Tanh(Function):
    """tanh x."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray) -> np.ndarray:
        y: np.ndarray = np.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray]:
        # d(tanh x)/dx = 1 - tanh^2 x
        (y,) = ctx.saved_tensors
        return (grad_output * (1 - y * y),)
