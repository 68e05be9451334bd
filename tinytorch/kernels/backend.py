"""One signature, three ways to compute it: `backend` chooses, `Kernel` keeps them together.

* `naive`: loops of Python over array elements, as the formula is written: the oracle of the others, and very slow;
* `numpy`: whole arrays at a time; runs wherever NumPy runs;
* `numba`: machine code for this processor (`tinytorch/kernels/compiled`), float32 only: other numbers go to NumPy.

The default is `numba` where Numba is installed. It is imported, and its kernels compiled, when one is first called.
"""

from __future__ import annotations

import functools
import importlib
import operator
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from tinytorch.kernels.machine import usable_cores

BACKENDS = ("naive", "numpy", "numba")

_FLOAT32 = np.dtype(np.float32)
_INSTALL = 'pip install "tinytorch-book[numba]"'

_current: str | None = None  # for the whole process: threads that work for one model see one choice
_threads = 1


def current_backend() -> str:
    """Return the name of the backend in use; the first call settles the default."""
    global _current
    if _current is None:
        try:
            compiled("jit")
            _current = "numba"
        except (ImportError, OSError) as error:  # not installed, or one that does not fit this NumPy or this system
            _current = "numpy"
            warnings.warn(f"TinyTorch computes with NumPy, the compiled kernels cannot be used: {error}", stacklevel=2)
    return _current


def compiled(name: str) -> ModuleType:
    """Import a module of `tinytorch/kernels/compiled`; a ModuleNotFoundError says what to install for it."""
    try:
        return importlib.import_module(f"tinytorch.kernels.compiled.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tinytorch"):
            raise
        raise ModuleNotFoundError(f"compiled kernels need {error.name}: {_INSTALL}", name=error.name) from error


class backend:
    """Compute with the named backend from now on; as a context (`with backend("naive"):`), until its end.

    Raises
    ------
    ValueError
        If there is no backend of that name.
    ModuleNotFoundError
        If it is "numba" and Numba is not installed.
    """

    def __init__(self, name: str) -> None:
        if name not in BACKENDS:
            raise ValueError(f"there is no backend {name!r}: choose one of {', '.join(BACKENDS)}")
        if name == "numba":
            compiled("jit")
        self.name, self._entered = name, False
        self._before: list[str | None] = []
        self._switch()

    def _switch(self) -> None:
        global _current
        self._before.append(_current)
        _current = self.name

    def __enter__(self) -> backend:
        if self._entered:  # used before: the call itself has switched the first time
            self._switch()
        self._entered = True
        return self

    def __exit__(self, *exc: object) -> None:
        global _current
        _current = self._before.pop()

    def __repr__(self) -> str:
        return f"backend({self.name!r})"


def set_num_threads(count: int | None) -> None:
    """Let the compiled kernels use `count` threads; None is one for each core that this process may use.

    One by default. Results do not depend on it: work is divided in the same places whoever does it.

    Raises
    ------
    ValueError
        If `count` is below 1.
    TypeError
        If it is no whole number.
    """
    global _threads
    if count is None:
        count = usable_cores()
    if operator.index(count) < 1:
        raise ValueError(f"kernels need at least one thread, got {count}")
    _threads = operator.index(count)


def get_num_threads() -> int:
    """Return how many threads the compiled kernels may use."""
    return _threads


class Kernel:
    """An operation on arrays, with an implementation for each backend.

    `@kernel` makes it of the NumPy version; `@name.naive` adds the loops; the compiled one has the same name in the
    module of the same name under `tinytorch/kernels/compiled`. It is given arrays of float32 only, of any strides but
    on the boundaries of their numbers; where a kernel takes `indices`, of integers too, behind the first.

    Arguments have to fit one another: kernels leave the checks to the layers, and compiled code that is given others
    reads and writes where it must not.
    """

    __name__: str

    def __init__(self, function: Callable[..., Any], indices: bool = False) -> None:
        functools.update_wrapper(self, function)
        self._versions, self._indices = {"numpy": function}, indices

    def naive(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Take a function as the naive version."""
        self._versions["naive"] = function
        return function

    def version(self, name: str) -> Callable[..., Any]:
        """Return the implementation of the named backend.

        Raises
        ------
        KeyError
            If there is none of that name.
        ModuleNotFoundError
            If it is "numba" and Numba is not installed.
        """
        if name == "numba" and name not in self._versions:
            self._versions[name] = getattr(compiled(self.__module__.rpartition(".")[2]), self.__name__)
        return self._versions[name]

    def __call__(self, *args: Any, **named: Any) -> Any:
        name = _current or current_backend()
        if name == "numba":
            arguments = (*args, *named.values()) if named else args
            for a in arguments:
                if isinstance(a, np.ndarray):
                    # `is` alone is fast, and right but for copies; compiled code steps from whole element to element
                    if (a.dtype is _FLOAT32 or a.dtype == _FLOAT32) and a.flags.aligned:
                        continue
                    if self._indices and a.dtype.kind in "iu" and a is not arguments[0]:
                        continue
                    name = "numpy"
                    break
        return (self._versions.get(name) or self.version(name))(*args, **named)

    def __repr__(self) -> str:
        return f"<kernel {self.__module__}.{self.__name__}>"


kernel = Kernel
