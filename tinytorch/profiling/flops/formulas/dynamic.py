"""Linear layers in whole numbers, whose input is rounded when it comes. A whole number counts as a floating one."""

from __future__ import annotations

from tinytorch.ops.dynamic import DynamicLinear
from tinytorch.profiling.flops.count import Count, counts, traffic
from tinytorch.profiling.flops.formulas.parts import result
from tinytorch.profiling.operation import Operation

ELEMENT = 4  # of the input: its absolute value, a comparison, a division, a rounding
ROW = 2  # a division, and a comparison with the smallest scale
RESCALED = 2  # for each number that comes out: the scale of its channel, and that of its row


@counts(DynamicLinear, "forward")
def _dynamic_linear(operation: Operation) -> Count:
    """As many MACs for each element of the result as there are inputs, one addition for its bias, and the rounding."""
    x, weight, scale, bias = operation.inputs[:4]
    y = result(operation)
    macs, rows = y.size * x.shape[-1], y.size // y.shape[-1]
    others = ELEMENT * x.size + ROW * rows + y.size * (RESCALED + (bias is not None))
    return Count(macs, 2 * macs + others, traffic(x, weight, scale, bias, y))
