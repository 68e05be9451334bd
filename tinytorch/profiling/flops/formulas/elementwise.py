"""Arithmetic element by element.

The gradient of an input that was repeated along an axis is a sum over that axis: one addition for each element of the
gradient of the output.
"""

from __future__ import annotations

from typing import NamedTuple

from tinytorch.ops import elementwise as ops
from tinytorch.profiling.flops.count import Count, Formula, counts, traffic
from tinytorch.profiling.flops.formulas.parts import each, each_gradient, gradient_bytes, needed, result, summed
from tinytorch.profiling.operation import Operation

for _function in (ops.Add, ops.Sub, ops.Mul, ops.Div, ops.Maximum, ops.Neg, ops.Pow, ops.Exp, ops.Log, ops.Tanh):
    counts(_function, "forward")(each(1))

for _function, _flops in (
    (ops.Neg, 1),  # -g
    (ops.Exp, 1),  # g y
    (ops.Log, 1),  # g / x
    (ops.Tanh, 3),  # g (1 - y y)
):
    counts(_function, "backward")(each_gradient(_flops))


class _Gradient(NamedTuple):
    """What a gradient costs: FLOPs for an element of the output's, and for one of the input before it is broadcast.

    `reads` are the numbers of the saved arrays in it. One without FLOPs is the output's own.
    """

    flops: int
    reads: tuple[int, ...] = ()
    own_flops: int = 0


def _two_inputs(a: _Gradient, b: _Gradient, shared: int = 0) -> Formula:
    """Count the derivative of a function of two inputs; `shared` FLOPs for an element serve both gradients."""

    def formula(operation: Operation) -> Count:
        g, read = result(operation), set[int]()
        flops, written = shared * g.size, 0
        for i, x in needed(operation):
            gradient, additions = (a, b)[i], summed(g, x)
            flops += gradient.flops * g.size + gradient.own_flops * x.size + additions
            if gradient.flops or additions:
                read |= {*gradient.reads}
                written += gradient_bytes(g, x)
        return Count(flops=flops, bytes=traffic(g, *(operation.saved[i] for i in read)) + written if written else 0)

    return formula


counts(ops.Add, "backward")(_two_inputs(_Gradient(0), _Gradient(0)))
counts(ops.Sub, "backward")(_two_inputs(_Gradient(0), _Gradient(1)))  # g, -g
counts(ops.Mul, "backward")(_two_inputs(_Gradient(1, (1,)), _Gradient(1, (0,))))  # g b, g a
counts(ops.Div, "backward")(_two_inputs(_Gradient(1, (1,)), _Gradient(3, (0, 1), own_flops=1)))  # g / b, -g a / (b b)
_larger = _Gradient(3, (0, 1))  # g ((a > b) + tie), with tie = (a == b) / 2 for both
counts(ops.Maximum, "backward")(_two_inputs(_larger, _larger, shared=2))


@counts(ops.Pow, "backward")
def _pow(operation: Operation) -> Count:
    """g (n x^(n - 1)); zeros for n = 0."""
    g, (x, exponent) = result(operation), operation.saved
    return Count(flops=3 * g.size, bytes=traffic(g, x, g)) if exponent else Count(bytes=g.nbytes)
