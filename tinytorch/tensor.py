"""`Tensor`: a NumPy array that remembers where it came from, with PyTorch's names for its methods."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinytorch.autograd import Variable
from tinytorch.ops import activation, elementwise, linear, reduction, shape
from tinytorch.ops.reduction import Axis


class Tensor(Variable):
    """A multi-dimensional array with a gradient.

    Parameters
    ----------
    data
        An array keeps its dtype and is not copied; Python numbers and lists of them become float32, or int64 if all
        are integers.
    requires_grad
        Whether `backward` fills `grad`. Operations on such tensors give tensors that require a gradient too.
    dtype
        That of the elements, if another: the data is then converted.

    Raises
    ------
    TypeError
        If the data are no real numbers, or `requires_grad` is asked of integers.
    ValueError
        If lists do not make an array, or words no numbers.

    Examples
    --------
    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    Tensor([2., 4., 6.])
    """

    grad: Tensor | None
    __array_ufunc__ = None  # array * tensor then asks the tensor

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None) -> None:
        if isinstance(data, Variable):
            data = data.data
        array = np.asarray(data, dtype=dtype)
        if dtype is None and array.dtype == np.float64 and not isinstance(data, np.ndarray | np.generic):
            array = array.astype(np.float32)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"a Tensor holds real numbers, not {array.dtype} (from {type(data).__name__})")
        super().__init__(array, requires_grad)

    def _like(self, data: np.ndarray) -> Tensor:
        return Tensor(data)  # also for subclasses: the sum of two parameters is no parameter

    def __repr__(self) -> str:
        body = np.array2string(self.data, separator=", ", prefix="Tensor(")
        note = f", grad_fn={self.grad_fn!r}" if self.grad_fn else ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({body}{note})"

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.data.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of the elements."""
        return self.data.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take."""
        return self.data.nbytes

    def numel(self) -> int:
        """Return the number of elements."""
        return self.data.size

    def __len__(self) -> int:
        return len(self.data)

    def item(self) -> float:
        """Return the only element as a Python number. A ValueError if there are others, or none."""
        return self.data.item()

    def numpy(self) -> np.ndarray:
        """Return the array itself, not a copy. A RuntimeError if it is part of a graph: `detach` first."""
        if self.requires_grad:
            raise RuntimeError("numpy() on a tensor that requires a gradient: use .detach().numpy() or .data")
        return self.data

    def detach(self) -> Tensor:
        """Return a tensor of the same memory outside of the graph."""
        return Tensor(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.data)

    # Arithmetic

    def __add__(self, other: Any) -> Tensor:
        return _apply(elementwise.Add, self, other)

    def __mul__(self, other: Any) -> Tensor:
        return _apply(elementwise.Mul, self, other)

    def __truediv__(self, other: Any) -> Tensor:
        return _apply(elementwise.Div, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _apply(elementwise.Div, other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _apply(elementwise.Sub, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _apply(elementwise.Sub, other, self)

    def __neg__(self) -> Tensor:
        return _apply(elementwise.Neg, self)

    def __pow__(self, exponent: float) -> Tensor:
        if not isinstance(exponent, int | float):
            raise TypeError(f"the exponent must be a Python number, not {type(exponent).__name__}")
        return _apply(elementwise.Pow, self, exponent)

    def __matmul__(self, other: Any) -> Tensor:
        return _apply(linear.MatMul, self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return _apply(linear.MatMul, other, self)

    __radd__ = __add__
    __rmul__ = __mul__

    def maximum(self, other: Any) -> Tensor:
        """Return the larger of the two, element by element."""
        return _apply(elementwise.Maximum, self, other)

    def exp(self) -> Tensor:
        """Return e to the power of each element."""
        return _apply(elementwise.Exp, self)

    def log(self) -> Tensor:
        """Return the natural logarithm of each element."""
        return _apply(elementwise.Log, self)

    def tanh(self) -> Tensor:
        """Return the hyperbolic tangent of each element."""
        return _apply(elementwise.Tanh, self)

    def relu(self) -> Tensor:
        """Return max(x, 0) of each element."""
        return _apply(activation.ReLU, self)

    def gelu(self) -> Tensor:
        """Return x Phi(x) of each element, tanh approximation."""
        return _apply(activation.GELU, self)

    def softmax(self) -> Tensor:
        """Return the softmax over the last axis."""
        return _apply(activation.Softmax, self)

    # Reductions

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Sum over `axis`, all axes if None."""
        return _apply(reduction.Sum, self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Mean over `axis`, all axes if None."""
        return _apply(reduction.Mean, self, axis, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Largest element over `axis`, all axes if None."""
        return _apply(reduction.Max, self, axis, keepdims)

    # Shapes

    def reshape(self, *sizes: Any) -> Tensor:
        """View in another shape, of as many elements: `x.reshape(2, -1)` or `x.reshape((2, -1))`; else a ValueError."""
        return _apply(shape.Reshape, self, _flatten(sizes))

    def permute(self, *axes: Any) -> Tensor:
        """View with the axes in another order: `x.permute(2, 0, 1)`. A ValueError if one is missing or there twice."""
        return _apply(shape.Permute, self, _flatten(axes))

    def transpose(self, axis0: int, axis1: int) -> Tensor:
        """View with two axes exchanged. An IndexError if there is no such axis."""
        axes = list(range(self.ndim))
        axes[axis0], axes[axis1] = axes[axis1], axes[axis0]
        return _apply(shape.Permute, self, tuple(axes))

    @property
    def T(self) -> Tensor:
        """View with all axes reversed."""
        return _apply(shape.Permute, self, tuple(reversed(range(self.ndim))))

    def flatten(self, start_dim: int = 0) -> Tensor:
        """View with the axes from `start_dim` on joined into one."""
        return self.reshape(*self.shape[:start_dim], math.prod(self.shape[start_dim:]))  # -1 fails at size 0

    def __getitem__(self, index: Any) -> Tensor:
        return _apply(shape.GetItem, self, _plain_index(index))


def cat(tensors: list[Tensor] | tuple[Tensor, ...], axis: int = 0) -> Tensor:
    """Join tensors along an existing axis: (..., a, ...) and (..., b, ...) -> (..., a + b, ...).

    Raises
    ------
    ValueError
        If there is no tensor, or their other axes differ.
    IndexError
        If there is no such axis.
    """
    if not tensors:
        raise ValueError("cat needs at least one tensor")
    return shape.Concatenate.apply(*map(_as_tensor, tensors), axis=axis)


def _as_tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)


def _apply(function: type[Any], *inputs: Any) -> Tensor:
    return function.apply(*map(_operand, inputs))


def _operand(x: Any) -> Any:
    # Python numbers follow the tensor's dtype (NumPy 2, NEP 50); NumPy's float64 scalars would turn float32 to float64
    if isinstance(x, np.ndarray) and x.ndim:
        return Tensor(x)
    return x.item() if isinstance(x, np.generic | np.ndarray) else x


def _flatten(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes


def _plain_index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(map(_plain_index, index))
    return index.data if isinstance(index, Tensor) else index
