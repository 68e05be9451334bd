"""How arrays lie in memory: as the kernels want them, without a copy where that is possible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def dense(x: np.ndarray) -> np.ndarray:
    """Return x if its elements fill a piece of memory, in C's order, Fortran's or channels last; else a copy in C's."""
    if x.flags.forc or (x.ndim == 4 and x.transpose(0, 2, 3, 1).flags.c_contiguous):
        return x
    return np.ascontiguousarray(x)


def ordered_as(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return x, or a copy of it, in the order in which a dense array of its shape lies in memory."""
    if x.strides == like.strides:
        return x
    copy = np.empty_like(like)
    copy[...] = x
    return copy


def in_one_piece(parts: Sequence[np.ndarray], multiple: int = 1) -> np.ndarray:
    """Return the bytes of arrays one behind the other, each filled up to a multiple; they begin with a cache's line."""
    filled = [np.pad(part.reshape(-1).view(np.uint8), (0, -part.nbytes % multiple)) for part in parts]
    size = sum(part.nbytes for part in filled)
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    piece = memory[start : start + size]
    piece[:] = np.concatenate(filled)
    return piece
