"""Images of float32 rounded to codes, a vector of pixels at a time."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from tinytorch.kernels.compiled.dot import broadcast as repeat
from tinytorch.kernels.compiled.dot import first_lanes, pointer, rounded, store_byte, store_masked
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import LANES, broadcast, load_first, total, vector, where


@intrinsic
def _store_rounded(typing, x, low, high, zero_point, address, count):
    """Keep numbers between low and high, round them, add the zero point, and write the first `count` as bytes."""

    def generate(context, builder, signature, args):
        low, high, zero = (repeat(builder, number, LANES) for number in args[1:4])
        codes = rounded(builder, args[0], low, high, zero)
        store_masked(builder, codes, pointer(builder, args[4], codes.type), first_lanes(builder, args[5], LANES))
        return context.get_dummy_value()

    numbers = types.float32, types.float32, types.int32
    return types.void(vector, *numbers, types.intp, types.intp), generate


@jit
def _round_line(source, i, count, rounding, target):
    scale, low, high = rounding[0], rounding[1], rounding[2]
    zero_point, one, nan = np.int32(rounding[3]), broadcast(np.float32(1)), broadcast(np.float32(0))
    for k in range(0, count, LANES):
        x = load_first(source, i + k, count - k) / scale
        nan = where(x != x, one, nan)
        _store_rounded(x, low, high, zero_point, target + k, count - k)
    return total(nan) > 0


@jit
def round_image(pixels, start, channels, height, width, rounding, target, pitch):
    """Write the codes of an image (C, H, W) that begins at pixels[start]; return whether one of its numbers was NaN.

    They go to the address `target`, channels last, the rows `pitch` bytes apart. `rounding` holds scale, lowest and
    highest code without the zero point, and the zero point.
    """
    nan = False
    if channels == 1:
        for y in range(height):
            nan |= _round_line(pixels, start + y * width, width, rounding, target + y * pitch)
        return nan
    codes = np.empty(width + LANES, np.uint8)
    for c in range(channels):
        for y in range(height):
            nan |= _round_line(pixels, start + (c * height + y) * width, width, rounding, codes.ctypes.data)
            for x in range(width):
                store_byte(target + y * pitch + x * channels + c, codes[x])
    return nan
