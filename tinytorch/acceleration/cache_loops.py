"""What `CacheHierarchy` runs once per access, and the loop nests that make the accesses.

Compiled where Numba is installed; without it the same functions run in Python, about a hundred times slower.
A cache is a slice of `tags`: for each of its sets, the numbers of the lines in it, the most recently used one first;
`geometry` has a row (first tag, log2 of the line, sets, ways) for each level.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinytorch.acceleration.compiled import compiled

A, B, C = 0, 1, 2


@compiled
def naive(n: int, item: int, a: int, b: int, c: int) -> Iterator[tuple[int, int, int]]:
    """Yield (array, address, is a write) of c = a @ b: every element of c is summed in a register, then stored."""
    for i in range(n):
        for j in range(n):
            for k in range(n):
                yield A, a + item * (i * n + k), 0
                yield B, b + item * (k * n + j), 0
            yield C, c + item * (i * n + j), 1


@compiled
def reordered(n: int, item: int, a: int, b: int, c: int) -> Iterator[tuple[int, int, int]]:
    """Yield the accesses of c += a @ b with k outside of j: a's element stays in a register, b and c are walked."""
    for i in range(n):
        for k in range(n):
            yield A, a + item * (i * n + k), 0
            for j in range(n):
                yield B, b + item * (k * n + j), 0
                yield C, c + item * (i * n + j), 0
                yield C, c + item * (i * n + j), 1


@compiled
def tiled(n: int, tile: int, item: int, a: int, b: int, c: int) -> Iterator[tuple[int, int, int]]:
    """Yield the accesses of `reordered` on squares of tile x tile elements, one triple of squares after another."""
    for i0 in range(0, n, tile):
        for k0 in range(0, n, tile):
            for j0 in range(0, n, tile):
                for i in range(i0, min(i0 + tile, n)):
                    for k in range(k0, min(k0 + tile, n)):
                        yield A, a + item * (i * n + k), 0
                        for j in range(j0, min(j0 + tile, n)):
                            yield B, b + item * (k * n + j), 0
                            yield C, c + item * (i * n + j), 0
                            yield C, c + item * (i * n + j), 1


@compiled
def _misses(tags: np.ndarray, first: int, ways: int, line: int) -> bool:
    """Look for a line in the `ways` tags of its set from `first` on, and make it the most recently used one."""
    if tags[first] == line:
        return False
    place = 1
    while place < ways and tags[first + place] != line:
        place += 1
    missed = place == ways
    if missed:
        place -= 1  # the least recently used line makes room
    for at in range(first + place, first, -1):
        tags[at] = tags[at - 1]
    tags[first] = line
    return missed


@compiled
def access(geometry: np.ndarray, tags: np.ndarray, address: int, size: int) -> int:
    """Return the level that holds all of these bytes, the number of levels if only memory does; all now hold them."""
    for level in range(len(geometry)):
        start, shift, sets, ways = geometry[level]
        line, last = address >> shift, (address + size - 1) >> shift
        missed = _misses(tags, start + line % sets * ways, ways, line)
        if last != line:
            missed |= _misses(tags, start + last % sets * ways, ways, last)
        if not missed:
            return level
    return len(geometry)


@compiled
def serve(geometry: np.ndarray, tags: np.ndarray, addresses: np.ndarray, sizes: np.ndarray, served: np.ndarray) -> None:
    """Write into `served` which level answered each access."""
    for i in range(len(addresses)):
        served[i] = access(geometry, tags, addresses[i], sizes[i])


@compiled
def count(
    nest: int,
    n: int,
    tile: int,
    item: int,
    bases: tuple[int, int, int],
    geometry: np.ndarray,
    tags: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Add every access of a loop nest (0 naive, 1 reordered, 2 tiled) to counts (array, is a write, level)."""
    a, b, c = bases
    if nest == 0:
        for array, address, write in naive(n, item, a, b, c):
            counts[array, write, access(geometry, tags, address, item)] += 1
    elif nest == 1:
        for array, address, write in reordered(n, item, a, b, c):
            counts[array, write, access(geometry, tags, address, item)] += 1
    else:
        for array, address, write in tiled(n, tile, item, a, b, c):
            counts[array, write, access(geometry, tags, address, item)] += 1
