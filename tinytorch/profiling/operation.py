"""What an operation was given, without the arrays: enough to count its work later, and small enough to keep."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinytorch.autograd import Variable
from tinytorch.profiling.dispatch import Call, Kind


class Array(NamedTuple):
    """An array's shape and dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take."""
        return self.size * self.dtype.itemsize


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
    """

    kind: Kind
    function: type
    inputs: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...] = ()
    output: Array | None = None
    needs_input_grad: tuple[bool, ...] = ()

    @classmethod
    def of(cls, call: Call) -> Operation | None:
        """Describe a call that has ended; None if it failed, or is none of an operation or an optimizer."""
        if call.failed:
            return None
        if call.kind == "forward":
            options = tuple((name, _plain(value)) for name, value in call.options.items()) if call.options else ()
            return cls("forward", call.target, tuple(map(_plain, call.inputs)), options, _array(call.result.data))
        if call.kind == "backward" and call.node is not None:
            variables = call.node.inputs
            needs = tuple(v is not None and v.requires_grad for v in variables)
            inputs = tuple(None if v is None else _array(v.data) for v in variables)
            return cls("backward", call.target, inputs, (), _array(call.inputs[0]), needs)
        if call.kind == "optimizer":
            parameters = tuple(_array(p.data) for p in call.target.params if p.grad is not None)
            return cls("optimizer", type(call.target), parameters)
        return None


def _array(array: np.ndarray) -> Array:
    return Array(array.shape, array.dtype)


def _plain(value: Any) -> Any:
    if isinstance(value, Variable):
        return Array(value.data.shape, value.data.dtype)
    if isinstance(value, np.ndarray):
        return Array(value.shape, value.dtype)
    if value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    return type(value)
