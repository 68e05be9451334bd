"""Pooling of images (N, C, H, W) over windows of k x k."""

from __future__ import annotations

from tinytorch.ops import image as ops
from tinytorch.profiling.flops.count import Count, counts, traffic
from tinytorch.profiling.flops.formulas.parts import result
from tinytorch.profiling.operation import Operation
from tinytorch.profiling.shapes import Array


@counts(ops.MaxPool2d, "forward")
def _max_pool(operation: Operation) -> Count:
    """Compare each element of each window."""
    x, kernel, _ = operation.inputs
    y = result(operation)
    return Count(flops=y.size * kernel**2, bytes=traffic(x, y))


@counts(ops.MaxPool2d, "backward")
def _max_pool_grad(operation: Operation) -> Count:
    """Compare each element of a window with the largest; add the gradient at the first that equals it."""
    (x, y, kernel, _), g = operation.saved, result(operation)
    return Count(flops=g.size * (kernel**2 + 1), bytes=traffic(g, x, y, x))


@counts(ops.AvgPool2d, "forward")
def _avg_pool(operation: Operation) -> Count:
    """Sum each window and divide."""
    x, kernel, _ = operation.inputs
    y = result(operation)
    return Count(flops=y.size * (kernel**2 + 1), bytes=traffic(x, y))


@counts(ops.AvgPool2d, "backward")
def _avg_pool_grad(operation: Operation) -> Count:
    """Divide each gradient, and add it to each element of its window."""
    (shape, kernel, _), g = operation.saved, result(operation)
    return Count(flops=g.size * (kernel**2 + 1), bytes=traffic(g, Array(shape, g.dtype)))
