"""`Program`: the layers of an integer network in one call, as `plan.py` does it for float32.

The layers are rows of a table. One call works through it for one image after the other, in memory that was allocated
before and fits in the cache; each convolution writes where the next layer reads, the margin of zero codes included.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from tinytorch.kernels.compiled.dot import copy_bytes, load_scale, load_sum
from tinytorch.kernels.compiled.instructions import PATHS
from tinytorch.kernels.compiled.int8_conv import (
    CODES,
    POOLED,
    SUMS,
    choose_tile,
    convolve_image,
    linear_tiles,
    pack_weights,
    tiles,
)
from tinytorch.kernels.compiled.int8_input import round_image
from tinytorch.kernels.compiled.int8_pool import pool_row
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.threads import parallel_for
from tinytorch.kernels.conv import output_size
from tinytorch.kernels.int8 import Convolution, Linear, Network, Pooling

# Columns of the table of image layers. Places are counted in bytes from the memory's start; addresses are absolute.
_NAMES = (
    "tile",  # index in tiles(path); of a pooling layer -1 for the largest code, -2 for the mean
    "source",  # place where the input begins, its margin included
    "pitch",  # from one of its rows to the next
    "inner",  # place where the image begins in it
    "height",  # rows of the image
    "padding",
    "skips",  # 1 if the margin's code is 0: then it adds nothing
    "stride",
    "step",  # from one window to the next: stride * channels of the input
    "kernel",  # rows of the window
    "groups",  # of four bytes under one of them
    "head",  # groups in which the first window sees only a margin that adds nothing
    "tail",  # and the last
    "weights",  # addresses of weights, bias and multipliers
    "sums",
    "scales",
    "rows",  # of the result before pooling, as far as anyone reads them
    "columns",
    "channels",
    "pool",  # 2 if pooled by two
    "lowest",
    "highest",
    "zero_point",
    "plain",  # what it is in `dot.store_codes`
    "target",  # place of the result's first code; for the last layer, bytes of one result
    "target_pitch",
)
(
    TILE, SOURCE, PITCH, INNER, HEIGHT, PADDING, SKIPS, STRIDE, STEP, KERNEL, GROUPS, HEAD, TAIL, WEIGHTS, SUMS_AT,
    SCALES, ROWS, COLUMNS, CHANNELS, POOL, LOWEST, HIGHEST, ZERO_POINT, PLAIN, TARGET, TARGET_PITCH,
) = range(len(_NAMES))  # fmt: skip

# Columns of the table of linear layers. `floats` is 1 where numbers are wanted, not codes.
_VECTOR_NAMES = ("inputs", "outputs", "weights", "sums", "scales", "lowest", "highest", "zero_point", "plain", "floats")
V_INPUTS, V_OUTPUTS, V_WEIGHTS, V_SUMS, V_SCALES, V_LOWEST, V_HIGHEST, V_ZERO_POINT, V_PLAIN, V_FLOATS = range(10)


_NO_CODES, _NO_NUMBERS = np.empty(0, np.uint8), np.empty(0, np.float32)


@jit
def _addresses(codes, memory, scratch, hidden, out):
    return codes.ctypes.data, memory.ctypes.data, scratch.ctypes.data, hidden.ctypes.data, out.ctypes.data


@cache
def runner(path: int):
    """Compile a whole network for a path."""
    convolve = convolve_image(path)
    vectors_of, many, some, one = linear_tiles(path)
    many_rows, some_rows, width = tiles(path)[many][0], tiles(path)[some][0], vectors_of * PATHS[path].lanes

    @jit
    def layer(s, memory, scratch, target):
        source = memory + s[SOURCE]
        if s[TILE] < 0:
            for y in range(s[ROWS]):
                row, place = source + y * s[STRIDE] * s[PITCH], target + y * s[TARGET_PITCH]
                pool_row(row, s[PITCH], s[STEP], s[KERNEL], s[TILE] == -2, place, s[COLUMNS], s[CHANNELS])
        else:
            convolve(
                s[TILE], source, s[PITCH], s[STRIDE] * s[PITCH], s[STEP], s[KERNEL], s[SKIPS], s[PADDING], s[STRIDE],
                s[HEIGHT], s[GROUPS], s[HEAD], s[TAIL], s[WEIGHTS], s[SUMS_AT], s[SCALES], np.int32(s[LOWEST]),
                np.int32(s[HIGHEST]), np.int32(s[ZERO_POINT]), s[PLAIN], CODES if s[POOL] == 1 else POOLED, scratch,
                target, s[TARGET_PITCH], s[ROWS], s[COLUMNS], s[CHANNELS],
            )  # fmt: skip

    @jit
    def run(table, vectors, pixels, codes, shape, rounding, memory, scratch, hidden, out, floats, start, stop):
        """Compute images start ... stop - 1; return whether one of their numbers was NaN.

        Images of `shape` (C, H, W) come as float32 in `pixels`, or as codes, channels last. `hidden` holds the inputs
        of the linear layers in turns, of one image behind those of another. Results go to `out`, or, of a last layer
        that gives numbers, to `floats`.
        """
        channels, height, width_in = shape
        size, nan, turn = channels * height * width_in, False, len(hidden) // 2
        codes, memory, scratch, hidden, out = _addresses(codes, memory, scratch, hidden, out)
        for n in range(start, stop):
            into, pitch = hidden + n * size, width_in * channels
            if len(table):
                into, pitch = memory + table[0, INNER], table[0, PITCH]
            if len(pixels):
                nan |= round_image(pixels, n * size, channels, height, width_in, rounding, into, pitch)
            else:
                line = width_in * channels
                for y in range(height):
                    copy_bytes(codes + n * size + y * line, into + y * pitch, line)
            for i in range(len(table)):
                s = table[i]
                if i < len(table) - 1:
                    layer(s, memory, scratch, memory + s[TARGET])
                else:
                    layer(s, memory, scratch, (hidden if len(vectors) else out) + n * s[TARGET])
        for i in range(len(vectors)):
            s = vectors[i]
            source, result = hidden + i % 2 * turn, out if i == len(vectors) - 1 else hidden + (1 - i % 2) * turn
            n, inputs, outputs = start, s[V_INPUTS], s[V_OUTPUTS]
            while n < stop:
                count = stop - n
                tile = many if count >= many_rows else some if count >= some_rows else one
                if s[V_FLOATS]:
                    count = min(count, many_rows)
                convolve(
                    tile, source + n * inputs, 0, 0, inputs, 1, 0, 0, 1, 1, -(-inputs // 4), 0, 0, s[V_WEIGHTS],
                    s[V_SUMS], s[V_SCALES], np.int32(s[V_LOWEST]), np.int32(s[V_HIGHEST]), np.int32(s[V_ZERO_POINT]),
                    s[V_PLAIN], SUMS if s[V_FLOATS] else CODES, scratch, result + n * outputs, 0, 1, count, outputs,
                )  # fmt: skip
                for r in range(count if s[V_FLOATS] else 0):
                    for o in range(outputs):
                        total = np.float32(load_sum(scratch + 4 * (r * (-(-outputs // width) * width) + o)))
                        floats[(n + r) * outputs + o] = total * load_scale(s[V_SCALES] + 4 * o)
                n += count
        return nan

    return run


def _aligned(array: np.ndarray) -> np.ndarray:
    """Return a copy that begins where a line of the cache begins."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype)
    copy[:] = array
    return copy


class Program:
    """An integer network laid out for one path: `program(x)` computes what the network's layers say, bit for bit."""

    def __init__(self, network: Network, path: str) -> None:
        self._path = next(i for i, p in enumerate(PATHS) if p.name == path)
        self._run = runner(self._path)
        self._image = network.input_shape if len(network.input_shape) == 3 else (1, 1, *network.input_shape)
        self._shape, self._is_image = self._image, len(network.input_shape) == 3
        self._size, self._sums = 64, 1  # bytes and sums that a call needs for one image
        self._zero: list[tuple[int, int, int]] = []  # regions of the memory and the code that their margins hold
        self._kept: list[np.ndarray] = []  # what the addresses in the tables belong to
        # the image that is flattened for the next linear layer
        self._features: tuple[int, ...] | None = self._shape if self._is_image else None
        table: list[dict[str, int]] = []
        vectors: list[dict[str, int]] = []
        for each in network.layers:
            if isinstance(each, Linear):
                vectors.append(self._vector_step(each))
            elif isinstance(each, Convolution) and each.pool > 2:  # tiles pool by two only
                table.append(self._step(replace(each, pool=1), table))
                table.append(self._step(Pooling(each.pool, each.pool), table))
            else:
                table.append(self._step(each, table))
        self._result: tuple[int, ...] = self._image
        if table:
            channels, rows, columns = self._image
            table[-1] |= {"target": rows * columns * channels, "target_pitch": columns * channels}
        if vectors:
            self._result = (vectors[-1]["outputs"],)
        self._floats = bool(vectors and vectors[-1]["floats"])
        self._result_size = math.prod(self._result)
        self._widest = max((max(v["inputs"], v["outputs"]) for v in vectors), default=0)
        self._tables = [
            np.array([[step[name] for name in names] for step in steps], np.int64).reshape(-1, len(names))
            for steps, names in ((table, _NAMES), (vectors, _VECTOR_NAMES))
        ]
        zero, highest = network.zero_point, network.highest
        self._rounding = np.array([network.scale, -zero, highest - zero, zero], np.float32)
        self._template = np.zeros(self._size, np.uint8)
        for start, size, code in self._zero:
            self._template[start : start + size] = code
        self._local = threading.local()  # threads that share a program must not share its memory

    def _place(self, size: int, code: int) -> int:
        start = self._size
        self._size += -(-(size + 4) // 64) * 64  # four bytes more: a run may be read beyond its end
        self._zero.append((start, size, code))
        return start

    def _pack(self, layer: Convolution | Linear, weight: np.ndarray, vectors: int) -> dict[str, int]:
        width, channels = vectors * PATHS[self._path].lanes, len(weight)
        total = weight.reshape(channels, -1).sum(axis=1, dtype=np.int64)
        bias = (layer.bias - layer.input_zero_point * total).astype(np.int32)
        padded = (np.pad(numbers, (0, -channels % width)) for numbers in (bias, layer.multiplier))
        packed = [_aligned(array) for array in (pack_weights(weight, width), *padded)]
        self._kept += packed
        addresses = dict(zip(("weights", "sums", "scales"), (array.ctypes.data for array in packed), strict=True))
        plain = layer.highest == 255 and bool((layer.largest_sums() * layer.multiplier < 1 << 22).all())
        limits = {"lowest": layer.lowest, "highest": layer.highest, "zero_point": layer.zero_point}
        return addresses | limits | {"plain": int(plain)}

    def _step(self, layer: Convolution | Pooling, table: list[dict[str, int]]) -> dict[str, int]:
        channels, height, width = self._image
        if isinstance(layer, Convolution):
            kernel, padding, pool, margin = layer.weight.shape[2], layer.padding, layer.pool, layer.input_zero_point
        else:
            kernel, padding, pool, margin = layer.kernel, 0, 1, 0
        rows, columns = (output_size(n, kernel, layer.stride, padding) // pool * pool for n in (height, width))
        pitch = (width + 2 * padding) * channels
        source = self._place((height + 2 * padding) * pitch, margin)
        inner = source + padding * (pitch + channels)
        if table:
            table[-1] |= {"target": inner, "target_pitch": pitch}
        skips = margin == 0
        before, behind = min(padding, kernel), (columns - 1) * layer.stride + kernel - padding - width
        behind = min(max(behind, 0), kernel - before)
        head, tail = (taps * channels // 4 if skips and channels % 4 == 0 else 0 for taps in (before, behind))
        step = {
            "source": source, "pitch": pitch, "inner": inner, "height": height, "padding": padding,
            "skips": int(skips), "head": head, "tail": tail, "stride": layer.stride, "step": layer.stride * channels,
            "kernel": kernel, "groups": -(-kernel * channels // 4), "rows": rows, "columns": columns, "pool": pool,
        }  # fmt: skip
        if isinstance(layer, Convolution):
            channels = len(layer.weight)
            tile = choose_tile(self._path, columns, channels, pool == 2)
            vectors = tiles(self._path)[tile][1]
            step |= {"tile": tile, **self._pack(layer, layer.weight, vectors)}
            self._sums = max(self._sums, (columns + 1) // 2 * (channels + vectors * PATHS[self._path].lanes))
        else:
            step |= dict.fromkeys(("weights", "sums", "scales", "lowest", "highest", "zero_point", "plain"), 0)
            step["tile"] = -2 if layer.mean else -1
        self._image = self._features = (channels, rows // pool, columns // pool)
        return step | {"channels": channels}

    def _vector_step(self, layer: Linear) -> dict[str, int]:
        weight, inputs = layer.weight, layer.weight.shape[1]
        if self._features is not None:  # the features come with their channels last
            weight = weight.reshape(-1, *self._features).transpose(0, 2, 3, 1).reshape(len(weight), inputs)
            self._features = None
        vectors, many, _, _ = linear_tiles(self._path)
        width = vectors * PATHS[self._path].lanes
        self._sums = max(self._sums, tiles(self._path)[many][0] * (len(weight) + width))
        packed = self._pack(layer, weight[:, :, None, None], vectors)
        return {"inputs": inputs, "outputs": len(weight), "floats": int(layer.floats), **packed}

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return what `Network.__call__` promises."""
        n, pixels, codes = len(x), _NO_NUMBERS, _NO_CODES
        if x.dtype == np.uint8:
            codes = np.ascontiguousarray(x.transpose(0, 2, 3, 1) if self._is_image else x).reshape(-1)
        else:
            pixels = np.ascontiguousarray(x).reshape(-1)
        size = n * self._result_size
        out, floats = (
            (_NO_CODES, np.empty(size, np.float32)) if self._floats else (np.empty(size, np.uint8), _NO_NUMBERS)
        )
        hidden = np.empty(2 * (n * self._widest + 4), np.uint8)  # four bytes more: vectors may be read beyond their end
        nan: list[bool] = []
        parallel_for(self._part, n, pixels, codes, hidden, out, floats, nan)
        if any(nan):
            raise ValueError(f"the input holds {int(np.isnan(x).sum())} NaN, which have no code")
        if len(self._result) == 1:
            return (floats if self._floats else out).reshape(n, *self._result)
        channels, rows, columns = self._result
        return out.reshape(n, rows, columns, channels).transpose(0, 3, 1, 2)

    def _part(self, pixels: Any, codes: Any, hidden: Any, out: Any, floats: Any, nan: list[bool], *part: int) -> None:
        try:
            own = self._local.memory
        except AttributeError:
            own = self._local.memory = _aligned(self._template), _aligned(np.zeros(self._sums, np.int32))
        nan.append(
            self._run(*self._tables, pixels, codes, self._shape, self._rounding, *own, hidden, out, floats, *part)
        )
