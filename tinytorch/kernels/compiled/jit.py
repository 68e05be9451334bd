"""`jit`: Numba's compiler with a cache on disk that notices every change, and a line that says when it works.

Numba keeps compiled functions beside their source and looks only at that one file when it asks whether they are still
valid. Here they lie in the user's cache folder (`TINYTORCH_CACHE_DIR` names another), in a folder named by the hash of
all kernels: a change in `simd.py` recompiles what was inlined from it. A folder that cannot be written does no harm:
what it holds is used, what is missing is compiled for this process alone.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import platformdirs
from numba import types
from numba.core import event, sigutils
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target
from numba.core.serialize import dumps
from tqdm import tqdm

_KEPT = 4  # folders of earlier versions of the kernels that stay: other checkouts may be using them


@cache
def cache_folder() -> Path:
    """Return the folder of the compiled kernels: one for each version of their sources."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    named = os.environ.get("TINYTORCH_CACHE_DIR")
    root = Path(named) if named else Path(platformdirs.user_cache_dir("tinytorch"))
    return root / f"kernels-{digest.hexdigest()[:16]}"


@lru_cache(1)
def _make(folder: Path) -> None:
    """Make the folder, date it as used now, and remove those that were not used for longest."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        ours = [f for f in folder.parent.iterdir() if re.fullmatch("kernels-[0-9a-f]{16}", f.name)]
        for old in sorted(ours, key=lambda f: f.stat().st_mtime)[: -_KEPT - 1]:
            shutil.rmtree(old, ignore_errors=True)


class _OnDisk(_Cache):
    """What Numba asks of a cache: here a file for each function and signature, its name made of all that it depends on.

    Numba's own keeps an index for each function, which two processes that compile at once can mix up.
    """

    def __init__(self, function: FunctionType) -> None:
        self._function, self._on = function, True

    @property
    def cache_path(self) -> str:
        return str(cache_folder())

    def enable(self) -> None:
        self._on = True

    def disable(self) -> None:
        self._on = False

    def flush(self) -> None:
        """Forget nothing: what has changed has another name."""

    def _file(self, signature: Any, codegen: Any) -> Path | None:
        """Return where a function of that signature lies; None if it depends on something without a lasting name."""
        arguments, _ = sigutils.normalize_signature(signature)
        parts = _around(codegen), _identity(self._function), [_spell(a) for a in arguments]
        if " at 0x" in repr(parts):
            return None
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()
        name = f"{Path(self._function.__code__.co_filename).stem}.{self._function.__name__}"
        return cache_folder() / f"{name}-{digest[:24]}.nbc"

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        if not self._on:
            return None
        target_context.refresh()
        file = self._file(signature, target_context.codegen())
        if file is None:
            return None
        try:
            payload = pickle.loads(file.read_bytes())
            result = CompileResult._rebuild(target_context, *payload)
        except Exception:  # no file, or a damaged one: both are made anew
            return None
        # a function among the arguments came out of the file as a copy: say that it is the one that was asked for
        arguments, _ = sigutils.normalize_signature(signature)
        return result._replace(signature=result.signature.replace(args=arguments))

    def save_overload(self, signature: Any, result: Any) -> None:
        file = self._file(signature, result.codegen)
        if not self._on or file is None or result.lifted or result.library.has_dynamic_globals:
            return
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            partial.write_bytes(dumps(result._reduce()))
            os.replace(partial, file)  # whole or not at all: other processes may be reading
        except OSError:
            pass
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _around(codegen: Any) -> tuple[Any, ...]:
    return numba.__version__, sys.version, codegen.magic_tuple()


def file_for_all(name: str) -> Path:
    """Return a place in the cache folder for what is true of all functions, with this Numba on this processor."""
    _make(cache_folder())
    around = repr(_around(cpu_target.target_context.codegen()))
    return cache_folder() / f"{name}-{hashlib.sha256(around.encode()).hexdigest()[:24]}"


@cache
def _digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _identity(value: Any) -> Any:
    """Describe a function or a value that it closes over, in words that are the same in every process."""
    if isinstance(value, Dispatcher):
        value = value.py_func
    if not isinstance(value, FunctionType):
        return repr(value)
    closure = [_identity(cell.cell_contents) for cell in value.__closure__ or ()]
    return value.__module__, value.__qualname__, _digest(value.__code__.co_filename), closure


def _spell(kind: types.Type) -> Any:
    return _identity(kind.dispatcher) if isinstance(kind, types.Dispatcher) else str(kind)


def jit(function: Callable[..., Any] | None = None, *, any_layout: bool = False, **options: Any) -> Any:
    """Compile a function to machine code when it is first called; it holds no lock on other threads while it runs.

    Parameters
    ----------
    function
        What to compile. Left out, the result is a decorator: `@jit(fastmath=True)`.
    any_layout
        Compile once for all arrays of a dtype and rank, where the function goes by their strides anyway; otherwise
        arrays in one piece, in Fortran's order and others each have code of their own, in all combinations.
    options
        Numba's.
    """
    if function is None:
        return lambda f: jit(f, any_layout=any_layout, **options)
    _name_for_linking(function)
    dispatcher = numba.njit(nogil=True, error_model="numpy", **options)(function)
    if any_layout:
        _share_among_layouts(dispatcher)
    if os.path.exists(function.__code__.co_filename):  # not so in a notebook
        _make(cache_folder())
        dispatcher._cache = _OnDisk(dispatcher.py_func)
    return dispatcher


def _name_for_linking(function: Callable[..., Any]) -> None:
    """Give a function that closes over values a name of its own for each of them.

    Machine code is linked by name. Numba tells functions of one name apart by numbers, which it gives in the order of
    compilation: code that comes from the disk was numbered in another process, where the same number may have meant a
    function with other values.
    """
    if cells := getattr(function, "__closure__", None):
        values = [_identity(cell.cell_contents) for cell in cells]
        function.__qualname__ += f"_{hashlib.sha256(repr(values).encode()).hexdigest()[:12]}"


def _share_among_layouts(dispatcher: Any) -> None:
    def compile_for(*args: Any) -> Any:
        kinds: list[Any] = [dispatcher.typeof_pyval(a) for a in args]
        shared = [k.copy(layout="A") if isinstance(k, types.Array) else k for k in kinds]
        machine_code = dispatcher.compile(tuple(shared))
        dispatcher._insert([k._code for k in kinds], machine_code, False)  # found at once from now on
        return machine_code

    dispatcher._compile_for_args = compile_for


class _Progress(event.Listener):
    """A line on the terminal from the first compilation to the last of those that it calls for.

    A notebook is told nothing: what a cell puts out is compared by nbval, and must not depend on whether it is the
    first to run a kernel. Chapters call `warmup` in a cell whose output is not compared.
    """

    def __init__(self) -> None:
        self.functions = 0
        self._depth, self._bar, self._said = 0, tqdm(disable=True), False

    def _is_ours(self, data: dict[str, Any]) -> bool:
        return str(data["dispatcher"].py_func.__module__).startswith("tinytorch.")

    def on_start(self, event: Any) -> None:
        if self._is_ours(event.data):
            if self._depth == 0:
                self._announce()
            self._depth += 1

    def _announce(self) -> None:
        line, file = "compiling kernels, once for this machine", sys.__stderr__
        if file is not None and file.isatty():
            self._bar = tqdm(desc=line, unit="function", leave=False, file=file)
        elif file is not None and not self._said and "ipykernel" not in sys.modules:  # a log: once is enough
            print(line, file=file, flush=True)
        self._said = True

    def on_end(self, event: Any) -> None:
        if self._is_ours(event.data):
            self._depth -= 1
            self.functions += 1
            self._bar.update()
            if self._depth == 0:
                self._bar.close()


_progress = _Progress()
event.register("numba:compile", _progress)


def compiled_functions() -> int:
    """Return how many functions this process has compiled; those that came from the disk do not count."""
    return _progress.functions
