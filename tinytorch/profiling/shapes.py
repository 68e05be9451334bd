"""Arrays without their elements, and other arguments in a form that can be kept, compared and looked up."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinytorch.autograd import Variable


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


def plain(value: Any) -> Any:
    """Return an `Array` for a tensor or array, numbers, strings and None as they are, of anything else its class.

    A NumPy scalar, such as operations on arrays without axes return, is an array without axes here.
    """
    if isinstance(value, Variable):
        return Array(value.data.shape, value.data.dtype)
    if isinstance(value, np.ndarray | np.generic):
        return Array(value.shape, value.dtype)
    if value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, tuple | list):
        return tuple(map(plain, value))
    return type(value)
