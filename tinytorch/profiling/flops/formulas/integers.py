"""Layers of whole numbers, one after another in one operation. A whole number counts as a floating one.

What lies between two layers stays in the cache, and does not count as moved. Sums that pooling drops, because its
windows do not reach the edge, are not computed.
"""

from __future__ import annotations

import math
from typing import Any

from tinytorch.kernels.conv import output_size
from tinytorch.ops.integers import IntegerNetwork
from tinytorch.profiling.flops.count import Count, counts, traffic
from tinytorch.profiling.flops.formulas.parts import result
from tinytorch.profiling.operation import Operation
from tinytorch.profiling.shapes import Array

ROUNDED = 5  # for each number that comes in: a division, two comparisons, a rounding, the zero point
CENTRED = 1  # for each code that a layer of weights takes: its distance from the zero point
RESCALED = 2  # for each sum: the bias, and the multiplier
CODED = 4  # for each sum that becomes a code: two comparisons, a rounding, the zero point
NUMBER = 4  # for each code that becomes a number: the zero point, the scale, two comparisons

_Work = tuple[tuple[int, ...], int, int]  # the shape that comes out, MACs, other operations


@counts(IntegerNetwork, "forward")
def _integer_network(operation: Operation) -> Count:
    """Round the input if it is numbers; the layers; numbers of the codes that come out, if their meaning is given."""
    x, layers, _, meaning = operation.inputs
    y = result(operation)
    others = ROUNDED * x.size if x.dtype.kind == "f" else 0
    others += NUMBER * y.size if meaning is not None else 0
    shape, macs = x.shape, 0
    for kind, *layer in layers:
        shape, more_macs, more_others = _LAYERS[kind](shape, *layer)
        macs, others = macs + more_macs, others + more_others
    return Count(macs, 2 * macs + others, traffic(x, layers, y))


def _linear(shape: tuple[int, ...], weight: Array, bias: Array, multiplier: Array, floats: bool) -> _Work:
    outputs, inputs = weight.shape
    sums = shape[0] * outputs
    return (shape[0], outputs), sums * inputs, CENTRED * math.prod(shape) + sums * (RESCALED + (not floats) * CODED)


def _convolution(
    shape: tuple[int, ...], weight: Array, bias: Array, multiplier: Array, stride: int, padding: int, pool: int
) -> _Work:
    """Max pooling compares each code of each window."""
    sizes = (output_size(n, weight.shape[2], stride, padding) // pool for n in shape[2:])
    after = shape[0], weight.shape[0], *sizes
    sums = math.prod(after) * pool**2
    compared = sums if pool > 1 else 0
    others = CENTRED * math.prod(shape) + sums * (RESCALED + CODED) + compared
    return after, sums * math.prod(weight.shape[1:]), others


def _pooling(shape: tuple[int, ...], kernel: int, stride: int, mean: bool) -> _Work:
    """Compare each code of each window; or sum them, divide and round."""
    after = *shape[:2], *(output_size(n, kernel, stride, 0) for n in shape[2:])
    return after, 0, math.prod(after) * (kernel**2 + 2 * mean)


_LAYERS: dict[str, Any] = {"linear": _linear, "convolution": _convolution, "pooling": _pooling}
