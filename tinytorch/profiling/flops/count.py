"""What an operation costs on paper: arithmetic and bytes, from the shapes of its arrays alone.

Conventions, the same for every formula in `tinytorch.profiling.flops.formulas`:

* An addition, subtraction, multiplication, division, comparison, negation, and one call of exp, log, tanh, sqrt or a
  power of array elements are one FLOP each. Arithmetic with indices, or once for the whole call with plain numbers
  such as a learning rate, is none.
* A sum of n terms is n additions, a maximum of n terms n comparisons: each begins with an empty accumulator. So one
  multiply-accumulate (MAC) is two FLOPs, and a product of (n, k) with (k, m) is n k m of them.
* The arithmetic is that of the textbook's formula, which stands in the docstring of each `Function`, or above its
  derivative, and not that of a kernel: which of them computes it changes nothing.
* Bytes are the least that the operation has to move if none is joined with another: each array that the formula reads
  once, each result once, one that is changed in place once (`acceleration.roofline` counts so too), a view none. What
  a forward keeps for its derivative is not counted there, but where the derivative reads it. The two factors of x * x
  count as two arrays: shapes do not tell that they are one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from typing import Any, Literal

from tinytorch.autograd import Function
from tinytorch.optim import Optimizer
from tinytorch.profiling.operation import Operation
from tinytorch.profiling.shapes import Array

Kind = Literal["forward", "backward", "optimizer"]


@dataclass(frozen=True, slots=True)
class Count:
    """The cost of one operation, or of several together.

    Attributes
    ----------
    macs
        Multiply-accumulates of products: matrix products, convolutions, and the two of attention.
    flops
        All operations on array elements; those of products are 2 `macs` of them.
    bytes
        Bytes that have to be moved.
    masked
        How many of `flops` are spent on positions that a causal mask hides. A kernel may skip them: they belong into
        a comparison with PyTorch's counts, and not under a roofline.

    Examples
    --------
    >>> Count(macs=6, flops=12, bytes=64) + Count(flops=3, bytes=24)
    Count(macs=6, flops=15, bytes=88, masked=0)
    """

    macs: int = 0
    flops: int = 0
    bytes: int = 0
    masked: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.macs + other.macs, self.flops + other.flops, self.bytes + other.bytes, self.masked + other.masked
        )

    def __mul__(self, times: int) -> Count:
        return Count(times * self.macs, times * self.flops, times * self.bytes, times * self.masked)


Formula = Callable[[Operation], Count]
_formulas: dict[tuple[str, type], Formula] = {}


def counts(function: type[Function] | type[Optimizer], kind: Kind) -> Callable[[Formula], Formula]:
    """Register the formula of a `Function`'s forward or backward, or of an optimizer's step, as a decorator.

    The formula gets an `Operation`: shapes and plain arguments. `inputs` are all that the forward takes by position, in
    its order, however they were given; defaults are filled in. It is asked once for equal work. A subclass is another
    operation: it does not inherit the formula.

    Raises
    ------
    TypeError
        If there is no such kind of `function`.

    Examples
    --------
    >>> class Square(Function):
    ...     "x * x."
    >>> @counts(Square, "forward")
    ... def _(operation: Operation) -> Count:
    ...     (x,) = operation.inputs
    ...     return Count(flops=x.size, bytes=traffic(x, operation.output))
    >>> counted("forward", Square), counted("backward", Square)
    (True, False)
    """
    kinds = ("forward", "backward") if issubclass(function, Function) else ("optimizer",)
    if kind not in kinds:
        raise TypeError(f"{function.__name__} has formulas for {' and '.join(kinds)}, not for {kind!r}")

    def register(formula: Formula) -> Formula:
        _formulas[kind, function] = formula
        _count.cache_clear()
        return formula

    return register


def counted(kind: str, function: type) -> bool:
    """Tell whether there is a formula."""
    _load()
    return (kind, function) in _formulas


def count(operation: Operation) -> Count | None:
    """Return what an operation costs, None if nobody has registered its formula."""
    return _count(operation)


@lru_cache(maxsize=4096)
def _count(operation: Operation) -> Count | None:
    _load()
    formula = _formulas.get((operation.kind, operation.function))
    return None if formula is None else formula(_by_position(operation))


def _by_position(operation: Operation) -> Operation:
    function = operation.function
    if operation.kind != "forward" or not issubclass(function, Function):
        return operation
    bound = signature(function.forward).bind(None, *operation.inputs, **dict(operation.options))
    bound.apply_defaults()
    return operation._replace(inputs=bound.args[1:], options=tuple(bound.kwargs.items()))  # the first is the context


def _load() -> None:
    """Register the framework's own formulas."""
    import tinytorch.profiling.flops.formulas  # noqa: F401  # they register with this module: not while it is imported


def traffic(*arrays: Any) -> int:
    """Add up the bytes of arrays, also of those inside of tuples; other arguments have none.

    >>> import numpy as np
    >>> traffic(Array((2, 3), np.dtype(np.float32)), None, 0.1, (Array((4,), np.dtype(np.int64)),))
    56
    """
    total = 0
    for array in arrays:
        if isinstance(array, Array):
            total += array.nbytes
        elif isinstance(array, tuple):
            total += traffic(*array)
    return total
