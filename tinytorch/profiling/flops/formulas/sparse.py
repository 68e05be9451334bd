"""Layers without their zeros, one, or several in one operation: a MAC for each weight that is stored.

A layer that keeps its zeros, because it has too few of them, multiplies and reads all of its weights, and no indices.
What lies between two layers stays in the cache, and does not count as moved. Sums that pooling drops, because its
windows do not reach the edge, are not computed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tinytorch.kernels.conv import output_size
from tinytorch.ops.sparse import SparseLayer, SparseNetwork
from tinytorch.profiling.flops.count import Count, counts, traffic
from tinytorch.profiling.flops.formulas.parts import gradient_bytes, result
from tinytorch.profiling.operation import Operation
from tinytorch.profiling.shapes import Array


class _Layer(NamedTuple):
    """A layer as `tinytorch.kernels.sparse.Network.described` has it."""

    kind: str
    values: Array
    indices: Array
    indptr: Array
    bias: Array | None
    columns: int
    dense: bool
    relu: bool
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    pool: int = 1
    mean: bool = False

    @property
    def outputs(self) -> int:
        return self.indptr.size - 1

    @property
    def weights(self) -> int:
        return self.outputs * self.columns if self.dense else self.values.size

    @property
    def weight_bytes(self) -> int:
        if self.dense:
            return self.weights * self.values.dtype.itemsize
        return traffic(self.values, self.indices, self.indptr)

    def after(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape behind the layer."""
        if self.kind == "linear":
            return shape[0], self.outputs
        sizes = (output_size(n, self.kernel, self.stride, self.padding) // self.pool for n in shape[2:])
        return shape[0], self.outputs, *sizes


@counts(SparseLayer, "forward")
@counts(SparseNetwork, "forward")
def _sparse(operation: Operation) -> Count:
    """Each sum has a bias and a ReLU if the layer has; pooling compares or sums each number of a window."""
    x, layers = operation.inputs[:2]
    y = result(operation)
    shape, macs, others, moved = x.shape, 0, 0, traffic(x, y)
    for layer in (_Layer(*each) for each in layers):
        shape = layer.after(shape)
        results = math.prod(shape)
        sums = results * layer.pool**2
        macs += layer.weights * (sums // layer.outputs)
        others += sums * ((layer.bias is not None) + layer.relu)
        others += sums + results * layer.mean if layer.pool > 1 else 0
        moved += layer.weight_bytes + traffic(layer.bias)
    return Count(macs, 2 * macs + others, moved)


@counts(SparseLayer, "backward")
def _sparse_grad(operation: Operation) -> Count:
    """Each MAC of the only layer once more."""
    (layer,), g = (_Layer(*each) for each in operation.saved[0]), result(operation)
    macs = layer.weights * (g.size // layer.outputs)
    return Count(macs, 2 * macs, g.nbytes + layer.weight_bytes + gradient_bytes(g, operation.inputs[0]))
