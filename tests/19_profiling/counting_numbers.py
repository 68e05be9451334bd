"""Numbers that count what is done with them, for arrays of objects: the oracle of every formula.

Each +, -, *, /, comparison, negation and call of a function of `Number`s is one operation, and an array that one of
its numbers was used of has been read. A sum begins at a zero that is a `Number` too: n terms are n additions.
"""

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np


class Ledger:
    """What was counted: operations, MACs, and of each array (by name) the elements that were read."""

    def __init__(self) -> None:
        self.flops = self.macs = 0
        self.read: dict[str, set[int]] = {}


def look(x: Any) -> float:
    """Read an operand; Python's own numbers are constants and cost nothing."""
    return x.read() if isinstance(x, Number) else float(x)


def _binary(compute: Callable[[float, float], float]) -> Callable[["Number", Any], "Number"]:
    def method(self: "Number", other: Any) -> "Number":
        if isinstance(other, np.ndarray):
            return NotImplemented  # the array asks each of its elements
        return self._operate(compute(self.read(), look(other)))

    return method


class Number:
    """A float that writes what happens to it into the current ledger."""

    ledger: ClassVar[Ledger] = Ledger()
    __slots__ = ("at", "value")

    def __init__(self, value: float, at: tuple[str, int] | None = None) -> None:
        self.value, self.at = float(value), at

    def read(self) -> float:
        """Look at the value, as a copy does: no arithmetic."""
        if self.at is not None:
            array, element = self.at
            self.ledger.read.setdefault(array, set()).add(element)
        return self.value

    def _operate(self, result: Any) -> "Number":
        self.ledger.flops += 1
        return Number(result)

    __add__ = __radd__ = _binary(lambda a, b: a + b)
    __sub__, __rsub__ = _binary(lambda a, b: a - b), _binary(lambda a, b: b - a)
    __mul__ = __rmul__ = _binary(lambda a, b: a * b)
    __truediv__, __rtruediv__ = _binary(lambda a, b: a / b), _binary(lambda a, b: b / a)
    __pow__ = _binary(lambda a, b: a**b)

    def __neg__(self):
        return self._operate(-self.read())

    def __bool__(self) -> bool:
        return bool(self.value)

    def __index__(self) -> int:
        return int(self.read())


def _called(function: Callable[..., float], operands: int = 1) -> Callable[..., Any]:
    """Make a function of numbers one of arrays of `Number`s, element by element; a call is one operation."""

    def call(*xs: Any) -> Number:
        return next(x for x in xs if isinstance(x, Number))._operate(function(*map(look, xs)))

    return np.frompyfunc(call, operands, 1)


exp, log, tanh, sqrt = map(_called, (math.exp, math.log, math.tanh, math.sqrt))
larger, greater, equal = (_called(function, 2) for function in (max, operator.gt, operator.eq))


def total(terms: Iterable[Any]) -> Number:
    """Add up."""
    result = Number(0.0)
    for term in terms:
        result = result + term
    return result


def largest(terms: Iterable[Any]) -> Number:
    """Compare one after another."""
    result = Number(-math.inf)
    for term in terms:
        result = larger(result, term)
    return result


def dot(pairs: Iterable[tuple[Any, Any]], start: Number | None = None) -> Number:
    """Multiply and accumulate."""
    result = Number(0.0) if start is None else start
    for a, b in pairs:
        result = result + a * b
        Number.ledger.macs += 1
    return result


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Return accumulators."""
    out = np.empty(shape, object)
    for at in np.ndindex(out.shape):
        out[at] = Number(0.0)
    return out


def copied(x: np.ndarray) -> np.ndarray:
    """Read every element and write it elsewhere."""
    out = np.empty(x.shape, object)
    for at in np.ndindex(x.shape):
        out[at] = Number(x[at].read())
    return out


def summed_to(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Add the elements that belong to one of `shape`, from which g was broadcast; g itself if none was."""
    if np.shape(g) == shape:
        return g
    out = zeros(shape)
    for at in np.ndindex(g.shape):
        to = tuple(i if n > 1 else 0 for i, n in zip(at[len(at) - len(shape) :], shape, strict=True))
        out[to] = out[to] + g[at]
    return out


def numbers(value: Any, name: str) -> Any:
    """Turn arrays into arrays of `Number`s that know their array, also inside of tuples; leave the rest."""
    if isinstance(value, tuple):
        return tuple(numbers(v, f"{name}.{i}") for i, v in enumerate(value))
    if not isinstance(value, np.ndarray | np.generic):
        return value
    value = np.asarray(value)
    out = np.empty(value.shape, object)
    for i, at in enumerate(np.ndindex(value.shape)):
        out[at] = Number(value[at], (name, i))
    return out


def plain(x: Any) -> np.ndarray:
    """Return the values, without looking at them."""
    x = np.asarray(x, object)
    out = np.empty(x.shape)
    for at in np.ndindex(x.shape):
        out[at] = x[at].value
    return out


def arrays(value: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays in a tuple by the names that `numbers` gives them."""
    if isinstance(value, tuple):
        for i, v in enumerate(value):
            yield from arrays(v, f"{name}.{i}")
    elif isinstance(value, np.ndarray | np.generic):
        yield name, np.asarray(value)


@contextmanager
def ledger() -> Iterator[Ledger]:
    """Begin at nothing."""
    Number.ledger = Ledger()
    yield Number.ledger
