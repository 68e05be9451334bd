"""Other views of the same elements: no arithmetic, and no copy where NumPy needs none."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.autograd import Context, Function


class Reshape(Function):
    """The same elements in another shape."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        ctx.save_for_backward(x.shape)
        return x.reshape(shape)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None]:
        (shape,) = ctx.saved_tensors
        return (grad_output.reshape(shape), None)


class Permute(Function):
    """Axes in another order."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        ctx.save_for_backward(axes)
        return x.transpose(axes)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None]:
        # the inverse order
        (axes,) = ctx.saved_tensors
        return (grad_output.transpose(np.argsort(np.asarray(axes) % grad_output.ndim)), None)


class GetItem(Function):
    """x[index], with anything that NumPy takes as an index; slices give views."""

    @staticmethod
    def forward(ctx: Context, x: np.ndarray, index: Any) -> np.ndarray:
        ctx.save_for_backward(x.shape, index)
        return np.asarray(x[index])

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None]:
        # elements that were not chosen have derivative 0; one that was chosen k times gets k gradients
        shape, index = ctx.saved_tensors
        grad = np.zeros(shape, grad_output.dtype)
        parts = index if isinstance(index, tuple) else (index,)
        if all(p is None or p is Ellipsis or isinstance(p, int | np.integer | slice) for p in parts):
            grad[index] = grad_output
        else:
            np.add.at(grad, index, grad_output)
        return (grad, None)


class Concatenate(Function):
    """Tensors one after another along `axis`: `Concatenate.apply(a, b, ..., axis=0)`."""

    @staticmethod
    def forward(ctx: Context, *xs: np.ndarray, axis: int = 0) -> np.ndarray:
        ctx.save_for_backward(np.cumsum([x.shape[axis] for x in xs])[:-1], axis)
        return np.concatenate(xs, axis=axis)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, ...]:
        # each input gets its own part of the gradient
        ends, axis = ctx.saved_tensors
        return tuple(np.split(grad_output, ends, axis=axis))
