"""The compiler, for loops that also run without it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a function when it is first called; without Numba, leave it to Python."""
    try:
        from tinytorch.kernels.compiled.jit import jit
    except ImportError:
        return function
    return jit(function)


def need_numba(task: str) -> None:
    """Raise ModuleNotFoundError with what to install, if Numba is not."""
    if not importlib.util.find_spec("numba"):
        raise ModuleNotFoundError(f'{task} needs compiled loops: pip install "tinytorch-book[numba]"', name="numba")
