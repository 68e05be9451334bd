"""Has a kernel lost its speed? `python -m tests.regression.gate`: exit 1 names the kernels that have.

Each kernel takes turns with the frozen baseline of the same mathematics (`frozen.py`), after both were found to agree;
how many times faster it is must not fall below a limit, which `limits.json` has for each width of vectors, and for each
path of the integer kernels. A limit is half of what was measured: the noise of a busy machine does not reach it, and a
kernel without its vectors, which is four times slower or more, does. A kernel that falls short is measured once more,
for longer, before it is called slow.

    python -m tests.regression.gate --lanes 1   # without SIMD: fails, and names every kernel
    python -m tests.regression.gate --write     # accept what is measured: half of it is the new limit
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.bench.turns import ratio
from tests.regression.lanes import compile_for, host_lanes
from tinytorch import backend
from tinytorch.profiling import Timer
from tinytorch.profiling.table import Column, Table

LIMITS = Path(__file__).with_name("limits.json")
FROZEN = Path(__file__).with_name("frozen.py")
SECONDS, LONGER = 0.4, 4  # for each kernel, and how many times that for one that falls short
ACCEPT = "python -m tests.regression.gate --write"


class Speed(NamedTuple):
    """How many times faster than its baseline a kernel is, and has to be at least."""

    name: str
    width: str
    ratio: float
    limit: float

    @property
    def lost(self) -> bool:
        return self.ratio < self.limit


def frozen_hash() -> str:
    """Return the hash of the baselines: line ends do not count."""
    return hashlib.sha256(FROZEN.read_text(encoding="utf-8").encode()).hexdigest()


def measure(name: str, rng: np.random.Generator, seconds: float) -> float:
    """Return how many times faster than its baseline a kernel is, once both were found to agree.

    They take turns of a quarter of a millisecond, as `Timer` does by itself: a busy core changes hands more seldom.
    """
    from tests.regression.cases import CASES

    case = CASES[name](rng)
    np.testing.assert_allclose(case.ours(), case.frozen(), rtol=1e-4, atol=1e-4, err_msg=name)
    return ratio(Timer(seconds, rng=rng).rounds([case.frozen, case.ours]), 0, 1)


def width(name: str, lanes: int) -> str:
    """Return what the speed of a kernel depends on, as the limits name it: lanes, or the path of whole numbers."""
    from tinytorch.kernels.dot import current_dot_path

    return current_dot_path() if name == "int8_linear" else str(lanes)


def check(names: Sequence[str], lanes: int, limits: dict[str, dict[str, float]]) -> Iterator[Speed]:
    """Measure kernels against the limits for so many lanes, those that fall short twice."""
    for name in names:
        here = width(name, lanes)
        rows = limits.get(name, {})
        limit = rows.get(here, rows.get("generic", 0.0))  # paths of processors that nobody measured on
        for seconds in (SECONDS, LONGER * SECONDS):
            found = Speed(name, here, measure(name, np.random.default_rng(0), seconds), limit)
            if not found.lost:
                break
        yield found


def table(speeds: Sequence[Speed]) -> Table:
    """Show each kernel with its limit, and below it what is wrong."""
    columns = (
        Column("kernel", words=True),
        Column("lanes or path", words=True),
        Column("times faster than frozen", "{:.1f}".format),
        Column("at least", "{:.1f}".format),
        Column("margin", "{:.2f}".format),
        Column("", words=True),
    )
    rows = [(s.name, s.width, s.ratio, s.limit, s.ratio / max(s.limit, 1e-9), "LOST" if s.lost else "") for s in speeds]
    notes = [
        f"{s.name} is {s.ratio:.1f} times faster than its frozen baseline, and was {s.limit:.1f} or more: has it lost "
        f"its vectors? If it is meant to be slower: {ACCEPT}"
        for s in speeds
        if s.lost
    ]
    return Table("Kernels over their frozen baselines", columns, rows, notes or ["No kernel has lost its speed."])


def write(speeds: Sequence[Speed]) -> None:
    """Keep half of each ratio as the limit, beside those for other lanes."""
    kept = json.loads(LIMITS.read_text(encoding="utf-8"))["limits"] if LIMITS.exists() else {}
    for speed in speeds:
        kept.setdefault(speed.name, {})[speed.width] = round(speed.ratio / 2, 1)
    rows = {"frozen": frozen_hash(), "limits": kept}
    LIMITS.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _compiled_for(lanes: int | None) -> Iterator[None]:
    """Compile kernels for so many lanes, in a folder that is kept only if TINYTORCH_CACHE_DIR names one."""
    if lanes is None:
        yield
        return
    with tempfile.TemporaryDirectory() as nowhere:
        compile_for(lanes, Path(os.environ.get("TINYTORCH_CACHE_DIR") or nowhere) / f"lanes-{lanes}")
        yield


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 1 if a kernel is slower than it may be."""
    parser = argparse.ArgumentParser(prog="python -m tests.regression.gate", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="KERNEL", help="measure these alone")
    parser.add_argument("--lanes", type=int, choices=(1, 4, 8, 16), help="compile for such vectors; 1 is without SIMD")
    parser.add_argument("--path", help="of the integer kernels, as `tinytorch.quantization.dot_path` takes it")
    parser.add_argument("--write", action="store_true", help="accept: write half of what is measured as limits")
    options = parser.parse_args(argv)
    with _compiled_for(options.lanes), backend("numba"):
        from tests.regression.cases import CASES
        from tinytorch.kernels.dot import dot_path

        names = options.only or list(CASES)
        if unknown := sorted(set(names) - CASES.keys()):
            parser.error(f"there is no kernel {', '.join(unknown)}; there are: {', '.join(CASES)}")
        if options.path:
            dot_path(options.path)
        # without vectors, kernels are held to what this processor's vectors give
        lanes = host_lanes() if options.lanes in (None, 1) else options.lanes
        if options.write and options.lanes == 1:
            parser.error("what kernels do without SIMD is no limit: write with those of this processor, or 4, 8 or 16")
        if options.write:
            speeds = [
                Speed(n, width(n, lanes), measure(n, np.random.default_rng(0), LONGER * SECONDS), 0) for n in names
            ]
            write(speeds)
        known = json.loads(LIMITS.read_text(encoding="utf-8"))
        if known["frozen"] != frozen_hash():
            parser.error(f"{FROZEN.name} has changed: undo that, for the limits were measured with it as it was")
        speeds = list(check(names, lanes, known["limits"]))
    table(speeds).print_rich()
    return int(any(speed.lost for speed in speeds))


if __name__ == "__main__":
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        sys.exit(main())
