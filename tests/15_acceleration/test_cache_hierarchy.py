"""The cache simulator against an ordered dictionary, and the laws that caches of this kind obey."""

import json
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.acceleration import CacheHierarchy, CacheLevel, matmul_trace

few = settings(max_examples=100)
NESTS = [("naive", None), ("reordered", None), ("tiled", 3), ("tiled", 4)]


class NaiveLevel:
    """One dictionary for each set, in the order of use."""

    def __init__(self, level: CacheLevel) -> None:
        self.level = level
        self.sets = [OrderedDict() for _ in range(level.sets)]

    def hits(self, address: int, size: int) -> bool:
        lines = {address // self.level.line, (address + size - 1) // self.level.line}
        return all([self.hits_line(line) for line in sorted(lines)])

    def hits_line(self, line: int) -> bool:
        held = self.sets[line % len(self.sets)]
        hit = line in held
        held[line] = True
        held.move_to_end(line)
        if len(held) > self.level.ways:
            held.popitem(last=False)
        return hit


def naive_served_by(levels, addresses, sizes) -> list[int]:
    caches = [NaiveLevel(level) for level in levels]
    served = []
    for address, size in zip(addresses, sizes, strict=True):
        answers = (i for i, cache in enumerate(caches) if cache.hits(address, size))
        served.append(next(answers, len(levels)))  # stops at the first level that hits: the others are not asked
    return served


@st.composite
def hierarchies(draw):
    levels = []
    for i in range(draw(st.integers(1, 3))):
        line = 2 ** draw(st.integers(3, 5))
        ways = draw(st.integers(1, 5))
        smallest = levels[-1].size if levels else 1
        sets = -(-smallest // (line * ways)) + draw(st.integers(0, 3))
        levels.append(CacheLevel(f"L{i + 1}", line * ways * sets, ways, line))
    return tuple(levels)


@st.composite
def traces(draw):
    """Addresses near one another, and sizes up to a line of 8 bytes: some accesses lie across two lines."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    length = draw(st.integers(0, 200))
    span = 2 ** draw(st.integers(3, 11))
    return rng.integers(0, span, length), rng.integers(1, 9, length)


@few
@given(levels=hierarchies(), trace=traces())
def test_every_access_is_served_as_by_ordered_dictionaries(levels, trace):
    addresses, sizes = trace
    served = CacheHierarchy(levels).served_by(addresses, sizes)
    assert served.tolist() == naive_served_by(levels, addresses.tolist(), sizes.tolist())


@few
@given(trace=traces())
def test_a_cache_that_holds_everything_misses_each_line_once(trace):
    addresses, _ = trace
    lines = np.unique(addresses // 16)
    cache = CacheHierarchy([CacheLevel("L1", 16 * max(1, len(lines)), ways=max(1, len(lines)), line=16)])
    assert cache.simulate(addresses, size=1).misses["L1"] == len(lines)


@few
@given(trace=traces(), sets=st.integers(1, 4), ways=st.integers(1, 6), more=st.integers(1, 4))
def test_more_ways_never_lose_a_hit(trace, sets, ways, more):
    """LRU is a stack algorithm: what few ways hold, more ways of the same sets hold too."""
    few_ways, more_ways = (
        CacheHierarchy([CacheLevel("L1", 8 * sets * w, w, line=8)]).served_by(*trace) for w in (ways, ways + more)
    )
    assert (more_ways <= few_ways).all()


def test_counts_add_up_to_what_each_access_met():
    cache = CacheHierarchy([CacheLevel("L1", 32, 1, line=16), CacheLevel("L2", 128, 2, line=32)])
    rng = np.random.default_rng(0)
    addresses, is_write = 4 * rng.integers(0, 100, 500), rng.random(500) < 0.3
    served, counts = cache.served_by(addresses), cache.simulate(addresses, is_write=is_write)
    assert counts.reads == tuple(np.bincount(served[~is_write], minlength=3))
    assert counts.writes == tuple(np.bincount(served[is_write], minlength=3))
    assert counts.accesses == 500
    assert counts.misses == {"L1": (served > 0).sum(), "L2": (served > 1).sum()}
    assert counts.miss_rates["L1"] == counts.misses["L1"] / 500
    assert counts.fetched_bytes == {"L1": 16 * counts.misses["L1"], "L2": 32 * counts.misses["L2"]}


def test_no_accesses_make_no_misses():
    counts = CacheHierarchy().simulate([])
    assert counts.accesses == 0
    assert counts.miss_rates == {"L1": 0.0, "LL": 0.0}


def naive_trace(nest: str, n: int, tile: int | None) -> list[tuple[str, int, int, bool]]:
    """Run the loop nest on matrices that note who touches them."""
    log = []
    left, right, out = (lambda r, c, w, name=name: log.append((name, r, c, w)) for name in "ABC")
    if nest == "naive":
        for i, j in np.ndindex(n, n):
            for k in range(n):
                left(i, k, False)
                right(k, j, False)
            out(i, j, True)
        return log
    blocks = [range(at, min(at + (tile or n), n)) for at in range(0, n, tile or n)]
    for rows, middle, columns in ((i, k, j) for i in blocks for k in blocks for j in blocks):
        for i in rows:
            for k in middle:
                left(i, k, False)
                for j in columns:
                    right(k, j, False)
                    out(i, j, False)
                    out(i, j, True)
    return log


@pytest.mark.parametrize(("nest", "tile"), NESTS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_traces_are_the_loop_nests(nest, tile, dtype):
    n, bases, item = 7, (1000, 20_000, 300), np.dtype(dtype).itemsize
    trace = matmul_trace(nest, n, tile_size=tile, dtype=dtype, bases=bases)
    expected = [("ABC".index(name), r * n + c, w) for name, r, c, w in naive_trace(nest, n, tile)]
    assert (
        list(zip(*(column.tolist() for column in (trace.array, trace.element, trace.is_write)), strict=True))
        == expected
    )
    np.testing.assert_array_equal(trace.address, np.array(bases)[trace.array] + item * trace.element)


@pytest.mark.parametrize(("nest", "tile"), NESTS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_matmul_counts_the_accesses_of_its_trace(nest, tile, dtype):
    cache = CacheHierarchy([CacheLevel("L1", 256, 2, line=16), CacheLevel("L2", 512, 4, line=32)])
    counts = cache.matmul(nest, 13, tile_size=tile, dtype=dtype)
    trace = matmul_trace(nest, 13, tile_size=tile, dtype=dtype)
    size = np.dtype(dtype).itemsize
    whole = cache.simulate(trace.address, size, trace.is_write)
    assert (counts.reads, counts.writes) == (whole.reads, whole.writes)
    served = cache.served_by(trace.address, size)
    for i, name in enumerate("ABC"):
        one = counts.arrays[name]
        assert one.reads == tuple(np.bincount(served[(trace.array == i) & ~trace.is_write], minlength=3))
        assert one.writes == tuple(np.bincount(served[(trace.array == i) & trace.is_write], minlength=3))


def test_tiles_that_fit_fetch_less_than_whole_rows():
    """128 x 128 float32 are 64 KiB: no matrix fits 32 KiB, but three tiles of 16 x 16 do."""
    cache = CacheHierarchy()
    naive, reordered = (cache.matmul(nest, 128).misses["L1"] for nest in ("naive", "reordered"))
    tiled = cache.matmul("tiled", 128, tile_size=16).misses["L1"]
    assert 10 * tiled < reordered
    assert 10 * reordered < naive


def test_without_numba_the_same_counts_come_from_python():
    program = """
import json, sys
sys.modules["numba"] = None
from tinytorch.acceleration import CacheHierarchy, CacheLevel
cache = CacheHierarchy([CacheLevel("L1", 256, 2, line=16), CacheLevel("L2", 512, 4, line=32)])
nests = [cache.matmul("naive", 12), cache.matmul("reordered", 12), cache.matmul("tiled", 12, tile_size=5)]
print(json.dumps([nest.misses for nest in nests] + [cache.served_by([0, 4, 300, 0, 14]).tolist()]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    cache = CacheHierarchy([CacheLevel("L1", 256, 2, line=16), CacheLevel("L2", 512, 4, line=32)])
    nests = [cache.matmul("naive", 12), cache.matmul("reordered", 12), cache.matmul("tiled", 12, tile_size=5)]
    assert json.loads(done.stdout) == [nest.misses for nest in nests] + [cache.served_by([0, 4, 300, 0, 14]).tolist()]


def test_importing_the_package_does_not_import_numba():
    program = "import sys, tinytorch.acceleration; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        ({"size": 1000, "ways": 8}, "multiple of 512 bytes"),
        ({"size": 0, "ways": 8}, "multiple of 512 bytes"),
        ({"size": 1024, "ways": 0}, "at least one line"),
        ({"size": 1024, "ways": 2, "line": 48}, "not a power of two"),
    ],
)
def test_a_cache_that_cannot_be_built_says_why(level, reason):
    with pytest.raises(ValueError, match=reason):
        CacheLevel("L1", **level)


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        ([], "at least one level"),
        ([CacheLevel("L1", 1024, 2), CacheLevel("L1", 2048, 2)], "one name"),
        ([CacheLevel("L1", 2048, 2), CacheLevel("L2", 1024, 2)], "nearest to the farthest"),
    ],
)
def test_a_hierarchy_in_disorder_is_refused(levels, reason):
    with pytest.raises(ValueError, match=reason):
        CacheHierarchy(levels)


@pytest.mark.parametrize(("addresses", "size"), [([-1], 4), ([0], 0), ([0], 65), ([0.5], 4), ([[0]], 4)])
def test_accesses_that_no_processor_makes_are_refused(addresses, size):
    with pytest.raises(ValueError, match=r"access begins at|row of whole numbers"):
        CacheHierarchy().served_by(addresses, size)


@pytest.mark.parametrize(
    "arguments",
    [
        {"nest": "blocked", "n": 4},
        {"nest": "naive", "n": 0},
        {"nest": "naive", "n": 4, "tile_size": 2},
        {"nest": "tiled", "n": 4},
        {"nest": "tiled", "n": 4, "tile_size": 0},
        {"nest": "naive", "n": 4, "bases": (-64, 0, 64)},
    ],
)
def test_nests_that_do_not_exist_are_refused(arguments):
    for function in (CacheHierarchy().matmul, matmul_trace):
        with pytest.raises(ValueError, match=r"no loop nest|at least|leave tile_size out|begin at 0"):
            function(**arguments)


def test_numbers_longer_than_a_line_are_refused():
    cache = CacheHierarchy([CacheLevel("L1", 64, 1, line=8)])
    with pytest.raises(ValueError, match="longer lines"):
        cache.matmul("naive", 2, dtype=np.complex128)
