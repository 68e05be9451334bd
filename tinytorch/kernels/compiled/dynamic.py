"""Rows of float32 rounded to codes, multiplied by the tiles of `int8_conv.py`, and scaled, a few rows at a time."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tinytorch.kernels.compiled.functions import largest, maximum
from tinytorch.kernels.compiled.instructions import PATHS
from tinytorch.kernels.compiled.int8_conv import SUMS, convolve_image, linear_tiles, pack_weights, tiles
from tinytorch.kernels.compiled.int8_input import round_image
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.layout import in_one_piece
from tinytorch.kernels.compiled.simd import LANES, array_at, broadcast, load_first
from tinytorch.kernels.compiled.threads import parallel_for
from tinytorch.kernels.dot import current_dot_path
from tinytorch.kernels.dynamic import MOST, SMALLEST, ZERO, no_code
from tinytorch.kernels.int8 import Linear

_NONE = np.empty(0, np.float32)


@cache
def path_index(name: str) -> int:
    """Return the place of a path in PATHS."""
    return next(i for i, path in enumerate(PATHS) if path.name == name)


def panel_width(path: int) -> int:
    """Return how many outputs a panel of weights has."""
    return linear_tiles(path)[0] * PATHS[path].lanes


def pack(layer: Linear, path: str) -> np.ndarray:
    """Return what `product` reads, one behind the other in one piece: panels of weights, sums of no code, and scales.

    Outputs are filled up to whole panels. It begins where a line of the cache begins.
    """
    index = path_index(path)
    width = panel_width(index)
    outputs, weight = len(layer.weight), layer.weight
    nothing = -layer.input_zero_point * weight.sum(axis=1, dtype=np.int64)
    parts = [pack_weights(weight[:, :, None, None], width)]
    parts += [np.pad(part, (0, -outputs % width)) for part in (nothing.astype(np.int32), layer.multiplier)]
    return in_one_piece(parts)


@jit
def _round_row(x, at, count, rounding, target):
    """Write the codes of a row to an address; return their scale, and whether a number was NaN or infinite."""
    top = broadcast(np.float32(0))
    for k in range(0, count, LANES):
        value = load_first(x, at + k, count - k)
        top = maximum(maximum(value, 0 - value), top)
    scale = max(largest(top) / np.float32(MOST), np.float32(SMALLEST))
    rounding[0] = scale
    # infinity over an infinite scale is NaN, too
    return scale, round_image(x, at, 1, 1, count, rounding, target, count)


@cache
def product(path: int):
    """Compile the product of some rows with the weights of a layer, for a path."""
    convolve = convolve_image(path)
    vectors, many, some, one = linear_tiles(path)
    many_rows, some_rows, width = tiles(path)[many][0], tiles(path)[some][0], vectors * PATHS[path].lanes

    @jit
    def multiply(x, first, rows, inputs, packed, bias, outputs, memory, out):
        """Write y of `rows` rows of x from `first` on to out, both flat; return whether a number had no code.

        `packed` is the address of what `pack` returns. `memory` holds, as long as this runs, codes (`rows * inputs + 4`
        bytes), sums (int32, `rows` times the outputs in whole panels) and `rows + 4` numbers. `bias` has no number if
        there is none.
        """
        codes, sums, rounding = memory
        groups, panels, nan = -(-inputs // 4), -(-outputs // width), False
        starts = packed + 4 * groups * panels * width
        factors = starts + 4 * panels * width
        rounding[1], rounding[2], rounding[3] = -MOST, MOST, ZERO
        scales = array_at(factors, outputs)
        tile, place, target = one, codes.ctypes.data, sums.ctypes.data
        if rows >= some_rows:
            tile = many if rows >= many_rows and (rows % many_rows == 0 or rows % some_rows) else some
        for r in range(rows):
            scale, strange = _round_row(x, (first + r) * inputs, inputs, rounding, place + r * inputs)
            nan |= strange
            rounding[4 + r] = scale
        convolve(
            tile, place, 0, 0, inputs, 1, 0, 0, 1, 1, groups, 0, 0, packed, starts, factors, np.int32(0),
            np.int32(255), np.int32(0), 0, SUMS, target, 0, 0, 1, rows, outputs,
        )  # fmt: skip
        for r in range(rows):
            scale, line, to = rounding[4 + r], r * panels * width, (first + r) * outputs
            if bias.size:
                for o in range(outputs):
                    out[to + o] = np.float32(sums[line + o]) * scales[o] * scale + bias[o]
            else:
                for o in range(outputs):
                    out[to + o] = np.float32(sums[line + o]) * scales[o] * scale
        return nan

    return multiply


@jit
def memory_for(rows, inputs, outputs, width):
    """Return the memory that `product` needs."""
    codes, sums = np.empty(rows * inputs + 4, np.uint8), np.empty(rows * (-(-outputs // width) * width), np.int32)
    return codes, sums, np.empty(4 + rows, np.float32)


@cache
def _layer(path: int):
    multiply, many = product(path), linear_tiles(path)[1]
    block, width = tiles(path)[many][0], panel_width(path)

    @jit
    def layer(x, inputs, packed, bias, outputs, out, strange, start, stop):
        """Do blocks start ... stop - 1 of the rows."""
        rows = x.size // inputs
        memory = memory_for(block, inputs, outputs, width)
        for n in range(start, stop):
            first = n * block
            count = min(block, rows - first)
            strange[n] = multiply(x, first, count, inputs, packed, bias, outputs, memory, out)

    return layer, block


def dynamic_linear(x: np.ndarray, product: Any, bias: np.ndarray | None) -> np.ndarray:
    """Do blocks of rows."""
    path = current_dot_path()
    layer, block = _layer(path_index(path))
    packed, inputs, outputs = product.packed(path), product.inputs, product.outputs
    out, blocks = np.empty((len(x), outputs), np.float32), -(-len(x) // block)
    strange = np.zeros(blocks, np.bool_)
    given = _NONE if bias is None else np.ascontiguousarray(bias)
    parallel_for(
        layer, blocks, np.ascontiguousarray(x).reshape(-1), inputs, packed.ctypes.data, given, outputs,
        out.reshape(-1), strange,
    )  # fmt: skip
    if strange.any():
        raise no_code(x)
    return out
