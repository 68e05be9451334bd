"""What several formulas are made of."""

from __future__ import annotations

from collections.abc import Iterator

from tinytorch.profiling.flops.count import Count, Formula, traffic
from tinytorch.profiling.operation import Operation
from tinytorch.profiling.shapes import Array


def result(operation: Operation) -> Array:
    """Return a forward's result, or the gradient that a derivative is given. An optimizer's step has neither."""
    if operation.output is None:
        raise ValueError(f"a step of {operation.function.__name__} returns nothing")
    return operation.output


def each(flops: int) -> Formula:
    """Count so many FLOPs for each element of the result; all inputs are read, one result is written."""

    def formula(operation: Operation) -> Count:
        y = result(operation)
        return Count(flops=flops * y.size, bytes=traffic(operation.inputs, y))

    return formula


def each_gradient(flops: int) -> Formula:
    """Count so many FLOPs for each element of the gradient; it and what was saved are read, one like it is written."""

    def formula(operation: Operation) -> Count:
        g = result(operation)
        return Count(flops=flops * g.size, bytes=traffic(g, operation.saved, g))

    return formula


def needed(operation: Operation) -> Iterator[tuple[int, Array]]:
    """Yield number and array of each input that the gradient is computed for."""
    return ((i, operation.inputs[i]) for i, needs in enumerate(operation.needs_input_grad) if needs)


def summed(gradient: Array, of: Array) -> int:
    """Count the additions that bring a gradient to the shape of an input that was broadcast; none if it has it."""
    return gradient.size if gradient.shape != of.shape else 0


def gradient_bytes(like: Array, of: Array) -> int:
    """Return the bytes of an input's gradient, in the dtype of the output's."""
    return of.size * like.dtype.itemsize


def nothing(operation: Operation) -> Count:
    """Count a view: other strides, no arithmetic and no byte."""
    return Count()
