"""How many instructions compiled kernels execute: counted by callgrind, the same on every x86 processor.

Where valgrind runs, any processor will do: kernels are compiled for one kind (`objects.py`). What LLVM makes of them
depends on its version, so counts belong to one, and with another they are not compared.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DRIVER = Path(__file__).with_name("driver.c")
LANES = 8  # those of AVX2


def missing() -> str | None:
    """Say what is missing for counting instructions here; None if nothing is."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"kernels are counted as Linux on x86-64 runs them, not {sys.platform} on {platform.machine()}"
    tools = [tool for tool in ("cc", "valgrind") if shutil.which(tool) is None]
    return f"needs {' and '.join(tools)}" if tools else None


def compiler() -> str:
    """Return the compiler whose code is counted."""
    import numba
    from llvmlite import binding

    return f"Numba {numba.__version__} with LLVM {'.'.join(map(str, binding.llvm_version_info))}"


def counts(lanes: int = LANES) -> dict[str, int]:
    """Compile, link and run each kernel, and count what it executes; what it calls in the system's libraries is not.

    Raises
    ------
    RuntimeError
        If a tool fails: says what it printed.
    """
    from tests.regression.objects import CPU

    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | CPU
        printed = _run([sys.executable, "-m", "tests.regression.objects", folder, lanes], environment)
        return {f"{name}/instructions": _count(Path(folder), name, it) for name, it in json.loads(printed).items()}


def _count(folder: Path, name: str, symbol: str) -> int:
    program, out = folder / name, folder / f"{name}.callgrind"
    # the code names functions of Python's for errors that do not occur here: nothing need be behind these names
    link = ["-no-pie", "-Wl,--unresolved-symbols=ignore-all", "-lm"]
    _run(["cc", "-O1", f'-DKERNEL="{symbol}"', DRIVER, folder / f"{name}.o", "-o", program, *link])
    options = [
        "--tool=callgrind",
        f"--toggle-collect={symbol}",
        "--compress-strings=no",
        "--demangle=no",
        f"--callgrind-out-file={out}",
    ]
    _run(["valgrind", *options, program])
    return own_instructions(out.read_text(encoding="utf-8"))


def own_instructions(profile: str) -> int:
    """Add what callgrind says of the functions that Numba made, without what they call elsewhere."""
    total, ours, inclusive = 0, False, False
    for line in profile.splitlines():
        if line.startswith("fn="):
            ours = re.match(r"fn=(cfunc\.)?_ZN|fn=NRT_", line) is not None
        elif line.startswith("calls="):
            inclusive = True  # the next line is the cost of the call
        elif re.match(r"[+*\d-]", line):
            total += 0 if inclusive or not ours else int(line.split()[1])
            inclusive = False
    return total


def _run(command: list[object], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return done.stdout
