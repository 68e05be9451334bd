"""The simulator against cachegrind, on the same loop nests compiled from C."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tinytorch.acceleration import CacheHierarchy, CacheLevel

SOURCE = Path(__file__).with_name("loop_nests.c")
# Without loop optimization and with fixed addresses, no counter of the nests has to live in memory.
OPTIONS = ["-O1", "-g", "-fno-tree-loop-optimize", "-fno-pie", "-no-pie"]
NESTS = ("naive", "reordered", "tiled")
USUAL = (CacheLevel("D1", 32 << 10, ways=8), CacheLevel("LL", 1 << 20, ways=16))
TINY = (CacheLevel("D1", 4 << 10, ways=4), CacheLevel("LL", 64 << 10, ways=16))  # too small for one matrix of 128 x 128


@pytest.fixture(scope="module", autouse=True)
def _tools():
    if sys.platform != "linux":
        pytest.skip("valgrind does not run here")
    missing = [tool for tool in ("cc", "valgrind") if shutil.which(tool) is None]
    if missing and "CI" in os.environ:
        pytest.fail(f"{' and '.join(missing)} must be installed here: without cachegrind the simulator goes unchecked")
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")


def run(command: list[object]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return a function that compiles the nests for a size, a tile and a type."""

    def program(n: int, tile: int, real: str) -> Path:
        path = folder / f"nests-{n}-{tile}-{real}"
        if not path.exists():
            run(["cc", *OPTIONS, f"-DN={n}", f"-DTILE={tile}", f"-Dreal={real}", SOURCE, "-o", path])
        return path

    folder = tmp_path_factory.mktemp("nests")
    return program


def cachegrind(program: Path, nest: str, levels: tuple[CacheLevel, ...]) -> tuple[Counter, list[int]]:
    """Run one nest; return its counts by (array, read or write, event) and the addresses of A, B and C.

    Only the lines of the source that name an array are counted: not the start of the program, nor the stack.
    """
    out = program.with_suffix(".out")
    caches = [f"--{level.name}={level.size},{level.ways},{level.line}" for level in levels]
    options = ["--tool=cachegrind", "--cache-sim=yes", *caches, f"--cachegrind-out-file={out}"]
    bases = [int(base) for base in run(["valgrind", *options, program, NESTS.index(nest)]).split()]

    marks = {
        number: mark.groups()
        for number, line in enumerate(SOURCE.read_text().splitlines(), 1)
        if (mark := re.search(rf"/\* {nest} ([ABC]) (read|write) \*/", line))
    }
    counts, events, here = Counter(), [], False
    for line in out.read_text().splitlines():
        if line.startswith("events:"):
            events = line.split()[1:]
        elif line.startswith("fl="):
            here = line.endswith(SOURCE.name)
        elif here and line[0].isdigit():
            number, *values = (int(word) for word in line.split())
            for event, value in zip(events, values, strict=True):
                if number in marks:
                    counts[*marks[number], event] += value
    return counts, bases


@pytest.mark.parametrize("levels", [USUAL, TINY], ids=["32 KiB and 1 MiB", "4 KiB and 64 KiB"])
@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize(
    ("n", "tile", "real"), [(64, 16, "float"), (128, 16, "float"), (128, 24, "float"), (64, 16, "double")]
)
def test_misses_agree_with_cachegrind(compiled, n, tile, real, nest, levels):
    """To 0.1 %, for each array, in reads and writes: the program's instructions share the last level with its data."""
    counts, bases = cachegrind(compiled(n, tile, real), nest, levels)
    cache, dtype = CacheHierarchy(levels), {"float": "f4", "double": "f8"}[real]
    result = cache.matmul(nest, n, tile_size=tile if nest == "tiled" else None, dtype=dtype, bases=bases)
    for name, array in result.arrays.items():
        for kind, served in (("read", array.reads), ("write", array.writes)):
            letter = kind[0]
            assert sum(served) == counts[name, kind, f"D{letter}"]
            assert sum(served[1:]) == pytest.approx(counts[name, kind, f"D1m{letter}"], rel=0.001)
            assert sum(served[2:]) == pytest.approx(counts[name, kind, f"DLm{letter}"], rel=0.001)
