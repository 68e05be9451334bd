"""What the fused kernels need beside `simd`: exp and max of vectors, tiles from scattered rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.simd import (
    _I32,
    _I64,
    _V,
    _VI,
    LANES,
    _load,
    _pointer,
    broadcast,
    fma,
    load_first,
    power_of_two,
    rint,
    vector,
    where,
)

# Functions of vectors


@jit(forceinline=True)
def maximum(a: Any, b: Any) -> Any:
    """Return the larger number in each lane; b's where either is NaN."""
    return where(a > b, a, b)


@jit(forceinline=True)
def minimum(a: Any, b: Any) -> Any:
    """Return the smaller number in each lane; b's where either is NaN."""
    return where(a < b, a, b)


@jit(forceinline=True)
def exp(x: Any) -> Any:
    """e^x to 2 units in the last place; infinite from 88.38 on, and 0 where the result would be below 2^-126.

    Source: S. Moshier's Cephes library, `single/expf.c`: e^x = 2^n e^r with n = rint(x / log 2), |r| <= log(2) / 2, and
    a polynomial for e^r.
    """
    capped = maximum(broadcast(np.float32(-88.0)), minimum(broadcast(np.float32(89.0)), x))  # n in -127 ... 128
    n = rint(capped * 1.44269504088896341)
    r = fma(n, broadcast(np.float32(2.12194440e-4)), fma(n, broadcast(np.float32(-0.693359375)), capped))
    p = fma(r, broadcast(np.float32(1.9875691500e-4)), broadcast(np.float32(1.3981999507e-3)))
    p = fma(p, r, broadcast(np.float32(8.3334519073e-3)))
    p = fma(p, r, broadcast(np.float32(4.1665795894e-2)))
    p = fma(p, r, broadcast(np.float32(1.6666665459e-1)))
    p = fma(p, r, broadcast(np.float32(5.0000001201e-1)))
    return (fma(p * r, r, r) + 1.0) * power_of_two(n)


@jit(forceinline=True)
def exp2(x: Any) -> Any:
    """2^x to 2 units in the last place; infinite from 127.5 on, and 0 where the result would be below 2^-126.

    Source: Cephes, `single/exp2f.c`.
    """
    capped = maximum(broadcast(np.float32(-127.0)), minimum(broadcast(np.float32(128.0)), x))
    n = rint(capped)
    r = capped - n
    p = fma(r, broadcast(np.float32(1.535336188319500e-4)), broadcast(np.float32(1.339887440266574e-3)))
    p = fma(p, r, broadcast(np.float32(9.618437357674640e-3)))
    p = fma(p, r, broadcast(np.float32(5.550332471162809e-2)))
    p = fma(p, r, broadcast(np.float32(2.402264791363012e-1)))
    p = fma(p, r, broadcast(np.float32(6.931472028550421e-1)))
    return fma(p, r, broadcast(np.float32(1.0))) * power_of_two(n)


@jit(forceinline=True)
def load_or(array: Any, index: Any, count: Any, missing: Any) -> Any:
    """Read `count` numbers, or a whole vector where there are more; the other lanes are `missing`."""
    return where(lanes() < np.float32(count), load_first(array, index, count), broadcast(np.float32(missing)))


@intrinsic
def lanes(typing):
    """Return 0, 1, 2, ..., LANES - 1."""

    def generate(context, builder, signature, args):
        return ir.Constant(_V, [float(i) for i in range(LANES)])

    return vector(), generate


@intrinsic
def largest(typing, value):
    """The largest lane; a NaN may be passed over."""

    def generate(context, builder, signature, args):
        (x,) = args
        half = LANES
        while half > 1:
            half //= 2
            parts = [ir.Constant(ir.VectorType(_I32, half), list(range(i, i + half))) for i in (0, half)]
            a, b = (builder.shuffle_vector(x, ir.Constant(x.type, ir.Undefined), part) for part in parts)
            x = builder.select(builder.fcmp_ordered(">", a, b), a, b)
        return builder.extract_element(x, ir.Constant(_I32, 0))

    return types.float32(vector), generate


# Tiles


@intrinsic
def load_rows(typing, array, index, stride, rows, width):
    """Read a tile of `rows` rows of `width` vectors (constants): from array[index] on, row after row `stride` apart."""
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(width, types.IntegerLiteral)):
        return None
    vectors = width.literal_value
    tile = types.UniTuple(vector, rows.literal_value * vectors)

    def generate(context, builder, signature, args):
        place, out = args[1], []
        for _ in range(rows.literal_value):
            pointer = _pointer(context, builder, array, args[0], place)
            out += [_load(builder, builder.gep(pointer, [_I64(v * LANES)])) for v in range(vectors)]
            place = builder.add(place, args[2])
        return context.make_tuple(builder, tile, out)

    return tile(array, types.intp, types.intp, rows, width), generate


@intrinsic
def transposed(typing, tile):
    """Exchange rows and columns of a tile of LANES vectors."""
    if len(tile) != LANES:
        return None

    def generate(context, builder, signature, args):
        rows, half = [builder.extract_value(args[0], r) for r in range(LANES)], 1
        while half < LANES:  # in each square of 2 half x 2 half: exchange the parts off its diagonal
            upper = ir.Constant(_VI, [LANES + n - half if n & half else n for n in range(LANES)])
            lower = ir.Constant(_VI, [LANES + n if n & half else n + half for n in range(LANES)])
            for r in range(LANES):
                if not r & half:
                    a, b = rows[r], rows[r + half]
                    rows[r], rows[r + half] = builder.shuffle_vector(a, b, upper), builder.shuffle_vector(a, b, lower)
            half *= 2
        return context.make_tuple(builder, tile, rows)

    return tile(tile), generate


@jit
def scratch(count: Any) -> Any:
    """Return a flat array of `count` numbers that begins at a vector's boundary; what it holds is not defined."""
    numbers = np.empty(count + LANES, np.float32)
    first = -(numbers.ctypes.data // 4) % LANES
    return numbers[first : first + count]
