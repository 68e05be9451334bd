"""Views, joins and rows looked up by number: bytes, and additions where a gradient has several sources."""

from __future__ import annotations

from typing import Any

from tinytorch.ops import shape as ops
from tinytorch.ops.embedding import Embedding
from tinytorch.profiling.flops.count import Count, counts, traffic
from tinytorch.profiling.flops.formulas.parts import nothing, result
from tinytorch.profiling.operation import Operation
from tinytorch.profiling.shapes import Array

counts(ops.Reshape, "forward")(nothing)  # NumPy copies where the elements do not lie in order; shapes do not tell
counts(ops.Reshape, "backward")(nothing)
counts(ops.Permute, "forward")(nothing)
counts(ops.Permute, "backward")(nothing)
counts(ops.Concatenate, "backward")(nothing)


@counts(ops.Concatenate, "forward")
def _concatenate(operation: Operation) -> Count:
    """Copy every input."""
    return Count(bytes=traffic(operation.inputs, result(operation)))


@counts(ops.GetItem, "forward")
def _get_item(operation: Operation) -> Count:
    """Slices are views; with arrays or lists in the index, copy the elements that they choose."""
    (x, index), y = operation.inputs, result(operation)
    return Count() if _is_basic(index, len(x.shape), len(y.shape)) else Count(bytes=traffic(y, index, y))


@counts(ops.GetItem, "backward")
def _get_item_grad(operation: Operation) -> Count:
    """Write the gradient into zeros; with arrays or lists in the index, add it: an element may be chosen twice."""
    (shape, index), g = operation.saved, result(operation)
    moved = traffic(g, index, Array(shape, g.dtype))
    return Count(flops=0 if _is_basic(index, len(shape), len(g.shape)) else g.size, bytes=moved)


def _is_basic(index: Any, ndim: int, result_ndim: int) -> bool:
    """Tell whether an index of plain arguments, where a list has become a tuple, takes slices alone."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(part, tuple | bool) or (isinstance(part, Array) and part.shape) for part in parts):
        return False
    taken = sum(isinstance(part, int | Array) for part in parts)
    return result_ndim == ndim - taken + parts.count(None)  # x[[0, 1]] has as many axes as x, x[0, 1] two less


@counts(Embedding, "forward")
def _embedding(operation: Operation) -> Count:
    """Read no row twice: as many as there are numbers, or all; which numbers are equal, shapes do not tell."""
    weight, ids = operation.inputs
    rows = min(ids.size, weight.shape[0])
    return Count(bytes=rows * weight.shape[1] * weight.dtype.itemsize + traffic(ids, result(operation)))


@counts(Embedding, "backward")
def _embedding_grad(operation: Operation) -> Count:
    """Add each row of the gradient to the row of the table that it came from."""
    (shape, ids), g = operation.saved, result(operation)
    return Count(flops=g.size, bytes=traffic(g, ids, Array(shape, g.dtype)))
