"""A simulator of caches: how many accesses of a program find their data in which level.

The model is cachegrind's. Each level holds lines of memory in sets of `ways` lines and gives up the least recently used
line of a set first. An access asks the nearest level, and the next one only if that misses; afterwards all levels that
were asked hold its lines. Writes are no different from reads: a store that misses fetches the line first
(write-allocate), and what writing lines back costs is not counted. There is no prefetcher and no address translation:
misses here are what the order of accesses alone makes.

Sources: the cachegrind manual (https://valgrind.org/docs/manual/cg-manual.html), whose counts the tests reproduce;
Hill & Smith, "Evaluating associativity in CPU caches" (1989); Drepper, "What every programmer should know about
memory" (2007), section 3.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

NESTS = ("naive", "reordered", "tiled")
_ARRAYS = ("A", "B", "C")
_PAGE = 4096
_FIRST_BASE = 1 << 20


@dataclass(frozen=True)
class CacheLevel:
    """One cache: `size` bytes in lines of `line` bytes, `ways` of them in a set.

    One way is a direct-mapped cache; `ways = size // line` is a fully associative one.

    Raises
    ------
    ValueError
        If the lines do not fill whole sets or a line is not a power of two.
    """

    name: str
    size: int
    ways: int
    line: int = 64

    def __post_init__(self) -> None:
        if self.line < 1 or self.line & (self.line - 1):
            raise ValueError(f"{self.name}: a line of {self.line} bytes is not a power of two; most processors have 64")
        if self.ways < 1:
            raise ValueError(f"{self.name}: {self.ways} ways; a set holds at least one line (1 is direct-mapped)")
        if self.size < 1 or self.size % (self.line * self.ways):
            raise ValueError(
                f"{self.name}: {self.size} bytes are not a whole number of sets of {self.ways} lines of {self.line} "
                f"bytes; take a multiple of {self.ways * self.line} bytes or other ways"
            )

    @property
    def sets(self) -> int:
        """The number of sets; line number modulo sets is the set that a line goes to."""
        return self.size // (self.line * self.ways)


@dataclass(frozen=True)
class CacheCounts:
    """How many reads and writes each level answered, the nearest level first and memory last.

    `arrays` has the same for each matrix of a matrix product: "A", "B" and "C".
    """

    levels: tuple[CacheLevel, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    arrays: Mapping[str, CacheCounts] = field(default_factory=dict)

    @property
    def accesses(self) -> int:
        """Reads and writes together."""
        return sum(self.reads) + sum(self.writes)

    @property
    def misses(self) -> dict[str, int]:
        """For each level, the accesses that did not find their data there or nearer."""
        return {level.name: sum(self.reads[i + 1 :]) + sum(self.writes[i + 1 :]) for i, level in enumerate(self.levels)}

    @property
    def miss_rates(self) -> dict[str, float]:
        """Misses of each level as a share of all accesses, not of those that reached the level."""
        return {name: misses / max(1, self.accesses) for name, misses in self.misses.items()}

    @property
    def fetched_bytes(self) -> dict[str, int]:
        """Bytes that came into each level: a line for each miss. For the last level, the traffic from memory."""
        return {level.name: self.misses[level.name] * level.line for level in self.levels}


class Trace(NamedTuple):
    """Accesses in the order in which a program makes them; arrays of shape (accesses,).

    `array`: 0, 1, 2 for A, B, C. `element`: place in that matrix, row by row. `address`: of its first byte.
    """

    array: np.ndarray
    element: np.ndarray
    address: np.ndarray
    is_write: np.ndarray


class CacheHierarchy:
    """Caches behind one another, the nearest first. Every simulation begins with empty caches.

    Counting all accesses of a product of 128 x 128 matrices takes 0.2 s where Numba is installed and has compiled once,
    15 s where it is not.

    Parameters
    ----------
    levels
        By default 32 KiB in 8 ways and 1 MiB in 16 ways, with lines of 64 bytes.

    Raises
    ------
    ValueError
        If there is no level, two have one name, or one is smaller than the level before it.

    Examples
    --------
    >>> near, far = CacheLevel("L1", size=64, ways=1, line=16), CacheLevel("L2", size=256, ways=4, line=16)
    >>> cache = CacheHierarchy([near, far])
    >>> cache.served_by([0, 4, 64, 0], size=4)  # 0 and 64 share the same set of L1, which has one way
    array([2, 0, 2, 1], dtype=int8)
    >>> cache.simulate([0, 4, 64, 0], size=4).misses
    {'L1': 3, 'L2': 2}
    """

    def __init__(self, levels: Sequence[CacheLevel] | None = None) -> None:
        if levels is None:
            levels = (CacheLevel("L1", 32 << 10, ways=8), CacheLevel("LL", 1 << 20, ways=16))
        if not levels:
            raise ValueError("a hierarchy has at least one level: pass [CacheLevel('L1', size=32768, ways=8)]")
        if len({level.name for level in levels}) < len(levels):
            raise ValueError(f"two levels have one name: {', '.join(level.name for level in levels)}")
        for near, far in itertools.pairwise(levels):
            if far.size < near.size:
                raise ValueError(
                    f"{far.name} ({far.size} bytes) is behind {near.name} ({near.size} bytes) but smaller: "
                    "levels go from the nearest to the farthest"
                )
        self.levels = tuple(levels)

    def served_by(self, addresses: ArrayLike, size: ArrayLike = 4) -> np.ndarray:
        """Return which level answers each access: 0 for the nearest, `len(levels)` for memory.

        Parameters
        ----------
        addresses
            Of the first byte of each access: (accesses,), in order.
        size
            Bytes of each access, or of all of them. One that lies across two lines asks for both.

        Returns
        -------
        np.ndarray
            int8, (accesses,)
        """
        from tinytorch.acceleration import cache_loops

        where = np.asarray(addresses)
        if where.ndim != 1 or (where.size and where.dtype.kind not in "iu"):
            raise ValueError(f"addresses are a row of whole numbers, not {where.dtype} of shape {where.shape}")
        sizes = np.broadcast_to(np.asarray(size, np.int64), where.shape)
        line = min(level.line for level in self.levels)
        if where.size and (where.min() < 0 or sizes.min() < 1 or sizes.max() > line):
            raise ValueError(f"an access begins at address 0 or above and has 1 to {line} bytes, the shortest line")
        served = np.empty(where.shape, np.int8)
        geometry, tags = self._empty()
        cache_loops.serve(geometry, tags, where.astype(np.int64), np.ascontiguousarray(sizes), served)
        return served

    def simulate(self, addresses: ArrayLike, size: ArrayLike = 4, is_write: ArrayLike = False) -> CacheCounts:
        """Count which level answers how many accesses; parameters as in `served_by`.

        `is_write` tells the writes from the reads, for each access or for all.
        """
        served = self.served_by(addresses, size)
        writes = np.broadcast_to(np.asarray(is_write, bool), served.shape)
        counts = np.zeros((2, len(self.levels) + 1), np.int64)
        np.add.at(counts, (writes.astype(np.intp), served), 1)
        return self._counts(counts)

    def matmul(
        self,
        nest: str,
        n: int,
        *,
        tile_size: int | None = None,
        dtype: DTypeLike = np.float32,
        bases: Sequence[int] | None = None,
    ) -> CacheCounts:
        """Count the accesses of C = A @ B, all n x n and in rows, by one of three loop nests.

        Parameters
        ----------
        nest
            "naive": i, j, k, the sum in a register. "reordered": i, k, j, adding to C in memory. "tiled": as
            "reordered", one triple of tiles after another.
        tile_size
            Rows and columns of a tile, for "tiled" alone.
        bases
            Addresses of A, B and C. By default they follow one another, each at the beginning of a page.

        Raises
        ------
        ValueError
            For another nest, a tile size that is missing or has no meaning, or numbers longer than a line.
        """
        from tinytorch.acceleration import cache_loops

        item = np.dtype(dtype).itemsize
        line = min(level.line for level in self.levels)
        if item > line:
            raise ValueError(f"{np.dtype(dtype)} has {item} bytes and a line {line}: take longer lines")
        tile = _check_nest(nest, n, tile_size)
        geometry, tags = self._empty()
        counts = np.zeros((3, 2, len(self.levels) + 1), np.int64)
        where = _check_bases(n, item, bases)
        cache_loops.count(NESTS.index(nest), n, tile, item, where, geometry, tags, counts)
        arrays = {name: self._counts(counts[i]) for i, name in enumerate(_ARRAYS)}
        return self._counts(counts.sum(axis=0), arrays)

    def _empty(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the geometry of `cache_loops` and tags of empty caches."""
        ends = np.cumsum([level.size // level.line for level in self.levels])
        geometry = [
            (end - level.size // level.line, level.line.bit_length() - 1, level.sets, level.ways)
            for end, level in zip(ends, self.levels, strict=True)
        ]
        return np.array(geometry, np.int64), np.full(ends[-1], -1, np.int64)

    def _counts(self, counts: np.ndarray, arrays: Mapping[str, CacheCounts] | None = None) -> CacheCounts:
        reads, writes = (tuple(row) for row in counts.tolist())
        return CacheCounts(self.levels, reads, writes, arrays or {})


def matmul_trace(
    nest: str,
    n: int,
    *,
    tile_size: int | None = None,
    dtype: DTypeLike = np.float32,
    bases: Sequence[int] | None = None,
) -> Trace:
    """List the accesses that `CacheHierarchy.matmul` counts, for matrices (n, n) small enough to look at them.

    Arguments and errors are those of that method.

    >>> trace = matmul_trace("naive", 2)
    >>> ["ABC"[a] + str(e) for a, e in zip(trace.array, trace.element)][:5]
    ['A0', 'B0', 'A1', 'B2', 'C0']
    """
    from tinytorch.acceleration import cache_loops

    item, tile = np.dtype(dtype).itemsize, _check_nest(nest, n, tile_size)
    where = _check_bases(n, item, bases)
    shape = (n, tile) if nest == "tiled" else (n,)
    accesses = getattr(cache_loops, nest)(*shape, item, *where)
    array, address, is_write = np.array(list(accesses), np.int64).T
    return Trace(array, (address - np.array(where)[array]) // item, address, is_write.astype(bool))


def _check_nest(nest: str, n: int, tile_size: int | None) -> int:
    if nest not in NESTS:
        raise ValueError(f"no loop nest {nest!r}: there are {', '.join(NESTS)}")
    if n < 1:
        raise ValueError(f"matrices have at least one row, not {n}")
    if nest != "tiled":
        if tile_size is not None:
            raise ValueError(f"{nest!r} has no tiles: leave tile_size out")
        return n
    if tile_size is None or tile_size < 1:
        raise ValueError(f"'tiled' takes a tile_size of at least 1, not {tile_size}")
    return tile_size


def _check_bases(n: int, item: int, bases: Sequence[int] | None) -> tuple[int, int, int]:
    if bases is None:
        step = -(-n * n * item // _PAGE) * _PAGE
        bases = [_FIRST_BASE + i * step for i in range(3)]
    a, b, c = (int(base) for base in bases)
    if min(a, b, c) < 0:
        raise ValueError(f"addresses begin at 0: {a}, {b}, {c}")
    return a, b, c
