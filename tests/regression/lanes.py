"""Our kernels compiled for vectors of another width: what they would be on another processor, or without vectors.

`simd.py` asks the processor for the number of lanes, once, when it is imported. `compile_for` imports it with another
number in that place; the kernels are written over whatever number it is. One lane is no SIMD at all: what LLVM would
make vectors of by itself is switched off, too, and whole numbers are multiplied one by one.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import os
import sys
from pathlib import Path

SIMD = "tinytorch.kernels.compiled.simd"


def compile_for(lanes: int, folder: Path) -> None:
    """Let this process compile its kernels for vectors of `lanes` float32 numbers, and keep them in `folder`.

    The folder has to be one for these lanes alone: the names of compiled files say nothing of them.

    Raises
    ------
    RuntimeError
        If kernels were imported before: they have their lanes. Or if `simd.py` does not set LANES in one place.
    """
    if SIMD in sys.modules:
        raise RuntimeError("kernels are imported already: choose lanes in a new process, before anything else")
    os.environ["TINYTORCH_CACHE_DIR"] = str(folder)
    if lanes == 1:
        _leave_loops_alone()
    _import_simd(lanes)
    if lanes == 1:
        _multiply_bytes_one_by_one()


def host_lanes() -> int:
    """Return the lanes that `simd.py` takes by itself on this processor, also where others were asked for."""
    module = importlib.import_module(SIMD)
    (found,) = _assignments(_parsed(Path(str(module.__file__))))
    return int(eval(ast.unparse(found.value), vars(module)))


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _assignments(tree: ast.Module) -> list[ast.Assign]:
    found = [n for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "LANES"]
    if len(found) != 1:
        raise RuntimeError(f"{SIMD} sets LANES in {len(found)} places, not one: {__name__} no longer knows how")
    return found


def _leave_loops_alone() -> None:
    from numba.core import config

    config.LOOP_VECTORIZE = config.SLP_VECTORIZE = 0


def _import_simd(lanes: int) -> None:
    """Import simd.py as it stands, but for the value of LANES."""
    spec = importlib.util.find_spec(SIMD)
    assert spec is not None
    path = Path(str(spec.origin))
    tree = _parsed(path)
    (found,) = _assignments(tree)
    found.value = ast.copy_location(ast.Constant(lanes), found.value)
    sys.modules[SIMD] = module = importlib.util.module_from_spec(spec)
    exec(compile(tree, path, "exec"), vars(module))


def _multiply_bytes_one_by_one() -> None:
    from tinytorch.kernels.compiled import instructions

    generic = next(path for path in instructions.PATHS if path.name == "generic")
    instructions.PATHS = (dataclasses.replace(generic, lanes=1),)
