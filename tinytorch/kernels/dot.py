"""Which instruction multiplies bytes: asked for, or forced for a comparison.

The compiled integer kernels come in several paths, one for each kind of processor (`compiled/instructions.py`). The
fastest that this processor has is taken. All give the same results, bit for bit.
"""

from __future__ import annotations

from functools import cache

from tinytorch.kernels.backend import compiled

_forced: str | None = None  # for the whole process, like the backend


@cache
def dot_paths() -> tuple[str, ...]:
    """Return the names of the paths that this processor can run, the fastest first.

    A ModuleNotFoundError if Numba is not installed: NumPy has no path to choose.
    """
    return tuple(path.name for path in compiled("instructions").paths_here())


def current_dot_path() -> str:
    """Return the name of the path that the compiled integer kernels take; errors are those of `dot_paths`."""
    return _forced or dot_paths()[0]


class dot_path:
    """Take the named path from now on; as a context (`with dot_path("generic"):`), until its end.

    Raises
    ------
    ValueError
        If there is no path of that name, or this processor cannot run it.
    ModuleNotFoundError
        If Numba is not installed.
    """

    def __init__(self, name: str) -> None:
        global _forced
        if name not in dot_paths():
            known = name in (path.name for path in compiled("instructions").PATHS)
            what = "this processor cannot run" if known else "there is no"
            raise ValueError(f"{what} path {name!r}: choose one of {', '.join(dot_paths())}")
        self._before, _forced = _forced, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        global _forced
        _forced = self._before
