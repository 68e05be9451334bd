"""What an operation of a graph is: what it takes, what shape comes out, what it costs, and the layer that does it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinytorch.benchmarks.tinymlperf.graph import AttributeValue
from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected, quoted
from tinytorch.quantization.tensor import QParams

MOST = Limits().activation_bytes  # of what kernels make for themselves: padded images, weights with their zeros
Arrays = list[np.ndarray | None]
Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Flow:
    """What is known of a value before anything is computed: dtype and shape, and of codes, what they mean."""

    dtype: str
    shape: tuple[int, ...]
    qparams: QParams | None = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Attribute:
    """A number in `low` ... `high`, or one of some texts. Without a `default` it has to be given."""

    kind: type
    low: float = -math.inf
    high: float = math.inf
    texts: tuple[str, ...] = ()
    default: AttributeValue | None = None

    def check(self, value: AttributeValue, where: str) -> Any:
        """Return the value, a float for a float; Rejected if it is of another type or out of range."""
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not self.kind:
            raise Rejected(Code.BAD_ATTRIBUTE, f"{where} is {type(value).__name__}, and has to be {self.kind.__name__}")
        if isinstance(value, str):
            if value not in self.texts:
                raise Rejected(Code.BAD_ATTRIBUTE, f"{where} is {quoted(value)}: choose one of {', '.join(self.texts)}")
        elif not (self.low <= value <= self.high):
            raise Rejected(Code.BAD_ATTRIBUTE, f"{where} is {value}, outside of {self.low:g} ... {self.high:g}")
        return value


@dataclass(frozen=True)
class Operation:
    """One entry of the list of operations.

    Attributes
    ----------
    name
        In graphs.
    shape
        (flows, arrays, attributes) -> the result's flow; Rejected where they do not fit. It checks all that the layer
        and its kernels rely on, and allocates nothing.
    flops
        (flow in, flow out, arrays, attributes) -> operations, 2 for each multiplication with addition.
    layer
        (arrays, attributes, flow in, flow out) -> the module that computes it.
    values
        How many values it takes, before the tensors.
    tensors, optional
        Names of the tensors that follow, and how many of the last may be left out.
    attributes
        By name.
    """

    name: str
    shape: Callable[[list[Flow], Arrays, Attributes], Flow]
    flops: Callable[[Flow, Flow, Arrays, Attributes], int]
    layer: Callable[[Arrays, Attributes, Flow, Flow], Any]
    values: int = 1
    tensors: tuple[str, ...] = ()
    optional: int = 0
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def checked(self, given: Mapping[str, AttributeValue], where: str) -> dict[str, Any]:
        """Return all attributes, defaults among them; Rejected if one is missing, unknown or wrong."""
        if unknown := sorted(set(given) - set(self.attributes)):
            raise Rejected(Code.BAD_ATTRIBUTE, f"{where} has no attribute {quoted(unknown[0])}")
        found = {}
        for name, attribute in self.attributes.items():
            value = given.get(name, attribute.default)
            if value is None:
                raise Rejected(Code.BAD_ATTRIBUTE, f"{where} lacks the attribute {name!r}")
            found[name] = attribute.check(value, f"{name!r} of {where}")
        return found


def need(condition: bool, code: Code, message: str) -> None:
    """Raise Rejected unless the condition holds."""
    if not condition:
        raise Rejected(code, message)


def need_array(
    array: np.ndarray | None, name: str, dtype: str | tuple[str, ...], shape: tuple[int | None, ...]
) -> None:
    """Raise Rejected if an array that is there has another dtype, or another shape than `shape`; None is any size."""
    if array is None:
        return
    dtypes = (dtype,) if isinstance(dtype, str) else dtype
    need(array.dtype.name in dtypes, Code.BAD_DTYPE, f"{name} is {array.dtype}, and has to be {' or '.join(dtypes)}")
    fits = array.ndim == len(shape) and all(w in (None, n) for w, n in zip(shape, array.shape, strict=True))
    wanted = tuple("any" if w is None else w for w in shape)
    need(fits and 0 not in array.shape, Code.BAD_SHAPE, f"{name} has shape {array.shape}, and {wanted} is needed")


def need_floats(flow: Flow, ndim: int | None, name: str) -> None:
    """Raise Rejected unless a value is float32, with `ndim` axes if that is given."""
    need(flow.dtype == "float32", Code.BAD_DTYPE, f"{name} takes float32, not {flow.dtype}")
    need(ndim is None or len(flow.shape) == ndim, Code.BAD_SHAPE, f"{name} takes {ndim} axes, not shape {flow.shape}")


def window(flow: Flow, name: str, kernel: int, stride: int, padding: int = 0) -> tuple[int, int]:
    """Return height and width behind windows over images; Rejected if none fits."""
    padded = math.prod(size + 2 * padding for size in flow.shape[2:]) * flow.shape[1] * 4
    need(padded <= MOST, Code.TOO_LARGE, f"the padded images of {name} would take {padded:,} bytes each")
    height, width = ((size + 2 * padding - kernel) // stride + 1 for size in flow.shape[2:])
    need(
        min(height, width) >= 1,
        Code.BAD_SHAPE,
        f"a window of {name}, {kernel} x {kernel}, does not fit in {flow.shape}",
    )
    return height, width
