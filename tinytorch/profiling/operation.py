"""What an operation was given, without the arrays: enough to count its work later, and small enough to keep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from tinytorch.autograd import Variable
from tinytorch.profiling.dispatch import Call, Kind
from tinytorch.profiling.shapes import Array, plain

__all__ = ["Array", "Operation", "sketch"]


class Operation(NamedTuple):
    """One call of an operation, of its derivative, or of an optimizer's step. Equal work compares equal.

    Attributes
    ----------
    kind
        "forward", "backward" or "optimizer".
    function
        The `Function` subclass, or the optimizer's class.
    inputs
        An `Array` for each tensor or array, numbers, strings and None as they are, of anything else its class. For a
        derivative the inputs of its operation, None where one was no tensor; for an optimizer the parameters that
        have a gradient.
    options
        Named arguments, in the same form.
    output
        The result; for a derivative the gradient of the result; None for an optimizer.
    needs_input_grad
        For a derivative, which inputs it is computed for.
    saved
        For a derivative, what its operation kept for it (`ctx.saved_tensors`), in the form of the inputs.
    """

    kind: Kind
    function: type
    inputs: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...] = ()
    output: Array | None = None
    needs_input_grad: tuple[bool, ...] = ()
    saved: tuple[Any, ...] = ()

    @classmethod
    def of(cls, call: Call) -> Operation | None:
        """Describe a call that has ended; None if it failed, or is none of an operation or an optimizer."""
        return cls.from_sketch(sketch(call))

    @classmethod
    def from_sketch(cls, sketch: Sketch | None) -> Operation | None:
        """Finish what `sketch` began; None stays None."""
        if sketch is None:
            return None
        kind, function, inputs, options, output, *derivative = sketch
        return cls(kind, function, tuple(map(_finished, inputs)), options, _finished(output), *derivative)


# A profiler takes a sketch of each call and makes operations of them when its block is over. Here arrays are plain
# tuples (shape, dtype), and nothing is called that can be avoided: Operation and Array would take twice the time.
Sketch = tuple[Kind, type, Iterable[Any], tuple[tuple[str, Any], ...], Any, tuple[bool, ...], tuple[Any, ...]]
_AS_IT_IS = frozenset((bool, int, float, str, type(None)))


def sketch(call: Call) -> Sketch | None:
    """Write down what `Operation.of` needs, in a microsecond."""
    if call.kind in ("module", "range", "pass") or call.failed:
        return None
    if call.kind == "forward":
        inputs = []
        for x in call.inputs:
            if isinstance(x, Variable):
                array = x.data
                inputs.append((array.shape, array.dtype))
            else:
                inputs.append(x if type(x) in _AS_IT_IS else plain(x))
        array = call.result.data
        options = tuple([(name, plain(value)) for name, value in call.options.items()]) if call.options else ()
        return "forward", call.target, inputs, options, (array.shape, array.dtype), (), ()
    if call.kind == "backward":
        variables = call.node.inputs if call.node is not None else []
        given = [None if v is None else (v.data.shape, v.data.dtype) for v in variables]
        needs = tuple([v is not None and v.requires_grad for v in variables])
        gradient = call.inputs[0]
        return "backward", call.target, given, (), (gradient.shape, gradient.dtype), needs, call.saved
    parameters = [(p.data.shape, p.data.dtype) for p in call.target.params if p.grad is not None]
    return "optimizer", type(call.target), parameters, (), None, (), ()


def _finished(value: Any) -> Any:
    # a pair with a dtype is an array: `plain` puts no dtype into a tuple
    return Array(*value) if type(value) is tuple and len(value) == 2 and isinstance(value[1], np.dtype) else value
