"""Integer convolution by register tiles: the plan of `conv.py` with bytes for numbers.

Codes lie with their channels last, so the codes under one row of the window are one run of bytes. Every step takes
four of them at once, for several windows, times four weights of each output channel. Where the image's zero is code 0,
what of a window sees only padding is skipped. A run that is no multiple of four goes on into the bytes behind it, whose
weights are zero.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from tinytorch.kernels.compiled.conv import seen_rows
from tinytorch.kernels.compiled.dot import (
    add_dots,
    larger_neighbours,
    larger_of,
    load_sums,
    store_codes,
    store_sums,
)
from tinytorch.kernels.compiled.instructions import PATHS
from tinytorch.kernels.compiled.jit import jit

# What becomes of the sums: codes; sums, in `scratch`; or codes of the largest of two by two.
CODES, SUMS, POOLED = range(3)

_TILES = {
    32: ((14, 1), (8, 1), (8, 2), (6, 4), (4, 4), (2, 4), (1, 4)),
    16: ((6, 2), (2, 2), (1, 2)),
}


def tiles(path: int) -> tuple[tuple[int, int], ...]:
    """Return the (windows, vectors) of the tiles that are compiled for a path."""
    return _TILES[PATHS[path].registers]


@cache
def choose_tile(path: int, width: int, channels: int, even: bool) -> int:
    """Return the index in `tiles(path)` for rows of `width` windows and `channels` output channels.

    As in `conv.choose_tile`. `even` is for pooling by two: no window may lack its neighbour.
    """
    lanes = PATHS[path].lanes

    def score(tile: tuple[int, int]) -> float:
        windows, vectors = tile
        if windows > width or (even and windows % 2):
            return 0.0
        useful = (
            width / (-(-width // windows) * windows) * channels / (-(-channels // (vectors * lanes)) * vectors * lanes)
        )
        loads = (windows + vectors) / (windows * vectors)
        return useful * min(1.0, windows * vectors / 8) / (1 + 0.1 * loads)

    scores = [score(tile) for tile in tiles(path)]
    return scores.index(max(scores))


def image_kernel(path: int, windows: int, vectors: int):
    """Compile the convolution of one image by tiles of that shape."""
    width = PATHS[path].lanes * vectors

    @jit
    def image(
        source, pitch, row_step, step, kh, skips, padding, stride, height, groups, head, tail, weights, sums, scales,
        lowest, highest, zero, plain, mode, scratch, target, target_pitch, rows, columns, channels,
    ):  # fmt: skip
        """Write `rows` times `columns` results of `channels` each to `target`; all places are addresses.

        Windows are `step` bytes apart, rows of windows `row_step`. A window has kh rows, `pitch` apart, of `groups`
        times four bytes; the first begins at `source`. If `skips`, margins hold code 0 and are passed over: rows
        outside of an image of `height` rows, for the first window in a row its first `head` groups, for the last one
        its last `tail`. Bias and multipliers stand at `sums` and `scales`; `plain` is that of `store_codes`. `scratch`
        holds the sums that `mode` is about.
        """
        panels = -(-channels // width)
        low, high = 0, kh
        for y in range(rows):
            codes, place = source + y * row_step, target + y * target_pitch
            if mode == POOLED:
                place = target + y // 2 * target_pitch
            if skips:
                low, high = seen_rows(y, stride, padding, 1, height, kh)
            for p in range(panels):
                rest, factors = channels - p * width, scales + 4 * p * width
                for begin in range(0, columns, windows):
                    x = min(begin, columns - windows)
                    tile = load_sums(path, sums + 4 * p * width, windows, vectors)
                    j = weights + (p * kh + low) * groups * 4 * width
                    skipped = head if x == 0 else 0
                    seen = groups - tail if x + windows >= columns else groups
                    for ky in range(low, high):
                        i = codes + ky * pitch + x * step
                        for k in range(skipped):
                            tile = add_dots(path, tile, i + 4 * k, step, j, vectors, 1, 0)
                            j += 4 * width
                        for k in range(skipped, seen):
                            tile = add_dots(path, tile, i + 4 * k, step, j, vectors, 0, 0)
                            j += 4 * width
                        for k in range(seen, groups):
                            tile = add_dots(path, tile, i + 4 * k, step, j, vectors, 0, 1)
                            j += 4 * width
                    if mode == CODES:
                        at = place + x * channels + p * width
                        if plain and rest >= width:
                            store_codes(tile, factors, lowest, highest, zero, at, channels, rest, vectors, 1)
                        else:
                            store_codes(tile, factors, lowest, highest, zero, at, channels, rest, vectors, 0)
                    elif mode == SUMS:
                        store_sums(tile, scratch + 4 * (x * panels + p) * width, 4 * panels * width, vectors)
                    else:
                        half = larger_neighbours(tile, vectors)
                        there = scratch + 4 * (x // 2 * panels + p) * width
                        if y % 2 == 0:  # the upper row waits for the lower one
                            store_sums(half, there, 4 * panels * width, vectors)
                            continue
                        half = larger_of(half, there, 4 * panels * width, vectors)
                        at = place + x // 2 * channels + p * width
                        if plain and rest >= width:
                            store_codes(half, factors, lowest, highest, zero, at, channels, rest, vectors, 1)
                        else:
                            store_codes(half, factors, lowest, highest, zero, at, channels, rest, vectors, 0)

    return image


@cache
def convolve_image(path: int):
    """Return the function that calls the kernel of a tile by its index in `tiles(path)`."""
    kernels = [image_kernel(path, *tile) for tile in tiles(path)]
    kernels += kernels[-1:] * (7 - len(kernels))
    image0, image1, image2, image3, image4, image5, image6 = kernels

    @jit
    def convolve(tile, *arguments):
        if tile == 0:
            image0(*arguments)
        elif tile == 1:
            image1(*arguments)
        elif tile == 2:
            image2(*arguments)
        elif tile == 3:
            image3(*arguments)
        elif tile == 4:
            image4(*arguments)
        elif tile == 5:
            image5(*arguments)
        else:
            image6(*arguments)

    return convolve


def linear_tiles(path: int) -> tuple[int, int, int, int]:
    """Return how many vectors the panels of linear layers hold, and the tiles for many rows, some and one."""
    known = tiles(path)
    vectors = known[-1][1]
    _, many, some, one = (0, *(max(t for t in known if t[1] == vectors and t[0] <= most) for most in (14, 4, 1)))
    return vectors, known.index(many), known.index(some), known.index(one)


def pack_weights(weight: np.ndarray, width: int) -> np.ndarray:
    """Lay weights (O, C, kh, kw) in panels of `width` channels: (panels, kh, groups, width, 4), flat.

    Missing channels and the bytes that fill a run up to a multiple of four are zero.
    """
    channels, _, kh, _ = weight.shape
    rows = weight.transpose(2, 3, 1, 0).reshape(kh, -1, channels)  # (kh, kw * C, O)
    groups, panels = -(-rows.shape[1] // 4), -(-channels // width)
    packed = np.zeros((kh, groups * 4, panels * width), np.int8)
    packed[:, : rows.shape[1], :channels] = rows
    return np.ascontiguousarray(packed.reshape(kh, groups, 4, panels, width).transpose(3, 0, 1, 4, 2)).reshape(-1)
