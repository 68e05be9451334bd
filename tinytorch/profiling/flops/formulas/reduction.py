"""Sums, means and maxima. What stretches a gradient to the input's shape is a view."""

from __future__ import annotations

from tinytorch.ops import reduction as ops
from tinytorch.profiling.flops.count import Count, counts, traffic
from tinytorch.profiling.flops.formulas.parts import nothing, result
from tinytorch.profiling.operation import Operation


@counts(ops.Sum, "forward")
@counts(ops.Max, "forward")
def _reduce(operation: Operation) -> Count:
    """Add or compare each element of x."""
    x = operation.inputs[0]
    return Count(flops=x.size, bytes=traffic(x, result(operation)))


counts(ops.Sum, "backward")(nothing)


@counts(ops.Mean, "forward")
def _mean(operation: Operation) -> Count:
    """Add each element, divide each sum."""
    x, y = operation.inputs[0], result(operation)
    return Count(flops=x.size + y.size, bytes=traffic(x, y))


@counts(ops.Mean, "backward")
def _mean_grad(operation: Operation) -> Count:
    """g / n."""
    g = result(operation)
    return Count(flops=g.size, bytes=traffic(g, g))


@counts(ops.Max, "backward")
def _max_grad(operation: Operation) -> Count:
    """g (x == y) / k, with the sum k of those that equal y: four for each element of x."""
    (x, y, *_), g = operation.saved, result(operation)
    return Count(flops=4 * x.size, bytes=traffic(g, x, y) + x.size * g.dtype.itemsize)
