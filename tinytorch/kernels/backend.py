"""One signature, three ways to compute it: `backend` chooses, `Kernel` keeps them together.

* `naive`: loops of Python over array elements, as the formula is written: the oracle of the others, and very slow;
* `numpy`: whole arrays at a time; runs wherever NumPy runs;
* `numba`: machine code for this processor (`tinytorch/kernels/compiled`), float32 only: other numbers go to NumPy.

The default is `numba` where Numba is installed. It is imported, and its kernels compiled, when one is first called.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

BACKENDS = ("naive", "numpy", "numba")

_current: str | None = None  # for the whole process: threads that work for one model see one choice
_threads = 1


def current_backend() -> str:
    """Return the name of the backend in use; the first call settles the default."""
    global _current
    if _current is None:
        if importlib.util.find_spec("numba"):
            _current = "numba"
        else:
            _current = "numpy"
            message = 'TinyTorch computes with NumPy: Numba is not installed (pip install "tinytorch-book[numba]")'
            warnings.warn(message, stacklevel=2)
    return _current


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
        if name == "numba" and not importlib.util.find_spec("numba"):
            raise ModuleNotFoundError('the backend "numba" needs Numba: pip install "tinytorch-book[numba]"')
        global _current
        self._previous, self.name = _current, name
        _current = name

    def __enter__(self) -> backend:
        return self

    def __exit__(self, *exc: object) -> None:
        global _current
        _current = self._previous

    def __repr__(self) -> str:
        return f"backend({self.name!r})"


def set_num_threads(count: int | None) -> None:
    """Let the compiled kernels use `count` threads; None is one for each core that this process may use.

    One by default. Results do not depend on it: work is divided in the same places whoever does it.
    """
    global _threads
    if count is None:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count < 1:
        raise ValueError(f"kernels need at least one thread, got {count}")
    _threads = count


def get_num_threads() -> int:
    """Return how many threads the compiled kernels may use."""
    return _threads


class Kernel:
    """An operation on arrays, with an implementation for each backend.

    `@kernel` makes it of the NumPy version; `@name.naive` adds the loops; the compiled one has the same name in the
    module of the same name under `tinytorch/kernels/compiled`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function
        self.__name__, self.__doc__, self.__module__ = function.__name__, function.__doc__, function.__module__
        self.__qualname__ = function.__qualname__
        self._versions = {"numpy": function}

    def naive(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Take a function as the naive version."""
        self._versions["naive"] = function
        return function

    def version(self, name: str) -> Callable[..., Any]:
        """Return the implementation of the named backend."""
        if name == "numba" and name not in self._versions:
            module = importlib.import_module(self.__module__.replace(".kernels.", ".kernels.compiled."))
            self._versions[name] = getattr(module, self.__name__)
        return self._versions[name]

    def __call__(self, *args: Any) -> Any:
        name = _current or current_backend()
        if name == "numba":
            for a in args:
                if isinstance(a, np.ndarray) and a.dtype != np.float32 and a.dtype.kind not in "iub":
                    name = "numpy"
                    break
        return self.version(name)(*args)

    def __repr__(self) -> str:
        return f"<kernel {self.__module__}.{self.__name__}>"


kernel = Kernel
