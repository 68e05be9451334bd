"""Networks of sparse layers: each weight that is not zero multiplies vectors of many images at once.

Inputs lie feature by feature, a *slot* for each: LANES images side by side, or a few times as many. A weight is read
once, repeated in every lane, and multiplies the slots that its output sums up over, of several pixels at a time. So the
zeros cost nothing, and no number is gathered: what is read stands side by side.

Weights are worked through in blocks of inputs that fit in the L1 cache together, or about: rows of few weights get
larger blocks. Between blocks the sums wait in memory, and weights lie in the order in which they are read. Layers of
which too few weights are zero have a dense form, four output channels at a time that share what is read.
"""

from __future__ import annotations

import math
import threading
from functools import cache
from typing import Any

import numpy as np

from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.panels import aligned, pack, unpack
from tinytorch.kernels.compiled.simd import LANES, REGISTERS, broadcast, either, load, store, where
from tinytorch.kernels.compiled.threads import parallel_for
from tinytorch.kernels.compiled.tiles import add_outer_product, load_spread, load_tile, repeat, store_tile, zeros
from tinytorch.kernels.conv import output_size
from tinytorch.kernels.sparse import Convolution, Layer, Linear, Network, Rows

MOST = 8  # vectors of an output channel at a time
GROUP = 4  # output channels at a time of a dense layer, and vectors of each: what the registers hold
MOST_DENSE = 6 if REGISTERS == 32 else 2
_L1 = 32768  # bytes, at least, of the fastest cache
_ENOUGH = 22  # weights of a row and block: to begin and end their sum takes as long as half a dozen of them
WIDTH = 4 * LANES  # images side by side, where there are so many: each weight that is read serves four vectors

# Columns of the table of layers. Places are counted in numbers from the memory's start; a slot is `width` numbers.
_NAMES = (
    "blocks",  # of inputs, worked through one after the other
    "counts",  # where the number of weights begins of each output channel (or group of them) in each block
    "indices",  # where the places begin of what its weights multiply, and where they themselves begin
    "values",
    "dense",  # 1 if zeros are multiplied, too
    "bias",  # where its numbers begin
    "source",  # place where the input begins, its margin included
    "pitch",  # from one row of it to the next
    "stride",  # from one pixel of it to the next that a sum begins at
    "rows",  # of the result before pooling, as far as anyone reads them
    "columns",
    "channels",
    "sums",  # place of `pool` rows of the result of every channel
    "relu",
    "pool",
    "mean",
    "target",  # place of the result, and from one channel and row of it to the next
    "target_plane",
    "target_pitch",
)
(
    BLOCKS, COUNTS, INDICES, VALUES, DENSE, BIAS, SOURCE, PITCH, STRIDE, ROWS, COLUMNS, CHANNELS, SUMS, RELU, POOL,
    MEAN, TARGET, TARGET_PLANE, TARGET_PITCH,
) = range(len(_NAMES))  # fmt: skip


@cache
def _multiplier(channels: int, vectors: int):
    """Compile the product for so many vectors of so many output channels at a time, which share what they read."""
    size = channels * vectors

    @jit
    def multiply(counts, indices, values, bias, s, memory, source, sums, pitch):
        """Write the sums of each output channel to memory[sums], channels `pitch` apart."""
        step, ones = s[STRIDE], repeat((broadcast(np.float32(1)),), vectors)
        task, start, first = s[COUNTS], s[INDICES], s[VALUES]
        for b in range(s[BLOCKS]):
            for o in range(0, s[CHANNELS], channels):
                stop = start + counts[task]
                task += 1
                if stop == start and b > 0:  # the first block begins every sum, also an empty one
                    continue
                place = sums + o * pitch
                if b == 0:
                    tile = add_outer_product(zeros(size), bias, s[BIAS] + o, 1, ones)
                else:  # of one channel
                    tile = load_tile(memory, place, size)
                if step == LANES:
                    for k in range(start, stop):
                        row = load_tile(memory, source + np.int64(indices[k]), vectors)
                        tile = add_outer_product(tile, values, first + (k - start) * channels, 1, row)
                else:
                    for k in range(start, stop):
                        row = load_spread(memory, source + np.int64(indices[k]), step, vectors)
                        tile = add_outer_product(tile, values, first + (k - start) * channels, 1, row)
                store_tile(tile, memory, place, pitch, vectors)
                first += (stop - start) * channels
                if channels == 1:  # groups of channels read the same places again
                    start = stop

    return multiply


_1, _2, _3, _4, _5, _6, _7, _8 = (_multiplier(1, n) for n in range(1, MOST + 1))
_dense_1, _dense_2, _dense_3, _dense_4, _dense_5, _dense_6 = (
    _multiplier(GROUP, min(n, MOST_DENSE)) for n in range(1, 7)
)


@jit
def _multiply(vectors, *arguments):
    if vectors == 8:
        _8(*arguments)
    elif vectors == 7:
        _7(*arguments)
    elif vectors == 6:
        _6(*arguments)
    elif vectors == 5:
        _5(*arguments)
    elif vectors == 4:
        _4(*arguments)
    elif vectors == 3:
        _3(*arguments)
    elif vectors == 2:
        _2(*arguments)
    else:
        _1(*arguments)


@jit
def _multiply_dense(vectors, *arguments):
    if vectors == 6:
        _dense_6(*arguments)
    elif vectors == 5:
        _dense_5(*arguments)
    elif vectors == 4:
        _dense_4(*arguments)
    elif vectors == 3:
        _dense_3(*arguments)
    elif vectors == 2:
        _dense_2(*arguments)
    else:
        _dense_1(*arguments)


@jit
def _finish(s, width, memory, y):
    """Pool the rows of sums from y on to one row of the result, with ReLU."""
    k, zero = s[POOL], broadcast(np.float32(0))
    count, row = broadcast(np.float32(k * k)), s[COLUMNS] * width
    for o in range(s[CHANNELS]):
        source = s[SUMS] + o * k * row
        target = s[TARGET] + o * s[TARGET_PLANE] + y // k * s[TARGET_PITCH]
        for x in range(0, row // k, LANES):
            place = source + x // width * k * width + x % width
            result = load(memory, place)
            if s[RELU]:
                result = where(result < zero, zero, result)
            for i in range(k):
                for j in range(1 if i == 0 else 0, k):
                    value = load(memory, place + i * row + j * width)
                    if s[RELU]:
                        value = where(value < zero, zero, value)
                    larger = where(either(value > result, value != value), value, result)
                    result = result + value if s[MEAN] else larger
            store(memory, target + x, result / count if s[MEAN] else result)


@jit
def run(table, counts, indices, values, bias, shape, places, x, memory, out, start, stop):
    """Compute the parts start ... stop - 1 of `width` images each."""
    width, total, inner, plane, pitch, last, size = places
    for part in range(start, stop):
        first = part * width
        count = min(width, total - first)
        pack(x, first, count, shape, width, memory, inner, plane, pitch)
        for i in range(len(table)):
            s = table[i]
            vectors = s[COLUMNS] * width // LANES
            chunks = -(-vectors // (MOST_DENSE if s[DENSE] else MOST))
            for y in range(s[ROWS]):
                source, sums = s[SOURCE] + y * s[PITCH], s[SUMS] + y % s[POOL] * vectors * LANES
                for c in range(chunks):
                    v, end = vectors * c // chunks, vectors * (c + 1) // chunks
                    from_here, to_here, apart = source + v * s[STRIDE], sums + v * LANES, s[POOL] * vectors * LANES
                    arguments = counts, indices, values, bias, s, memory, from_here, to_here, apart
                    if s[DENSE]:
                        _multiply_dense(end - v, *arguments)
                    else:
                        _multiply(end - v, *arguments)
                if y % s[POOL] == s[POOL] - 1 and s[SUMS] != s[TARGET]:
                    _finish(s, width, memory, y - s[POOL] + 1)
        unpack(memory, last, width, first, count, size, out)


class _Builder:
    """Tables and places of a network for panels of `width` images."""

    def __init__(self, network: Network, width: int) -> None:
        self.width, self.size = width, 0
        is_image = isinstance(network.layers[0], Convolution)
        self.shape = network.input_shape if is_image else (1, 1, math.prod(network.input_shape))
        self.counts, self.indices, self.values, self.bias = (list[np.ndarray]() for _ in range(4))
        steps: list[dict[str, int]] = []
        shape = self.shape
        for layer in network.layers:
            before = shape
            step, shape = self._convolution(layer, shape) if isinstance(layer, Convolution) else self._linear(layer)
            if steps:
                plane, line = step["plane"], step["line"]
                if isinstance(layer, Linear):  # reads what comes in one piece
                    plane, line = before[1] * before[2] * width, before[2] * width
                steps[-1] |= {"target": step["inner"], "target_plane": plane, "target_pitch": line}
            steps.append(step)
        rows, columns = shape[1:]
        place = self._place(math.prod(shape) + LANES)  # so many may be read beyond the end
        steps[-1] |= {"target": place, "target_plane": rows * columns * width, "target_pitch": columns * width}
        for step in steps:
            straight = step["pool"] == 1 and not step["relu"] and step["rows"] == 1
            straight = straight and step["target_plane"] == step["columns"] * width
            straight = straight and not (step["dense"] and step["channels"] % GROUP)
            step["sums"] = step["target"] if straight else step["sums"]
        self.first, self.last, self.features = steps[0], place, math.prod(shape)
        self.table = np.array([[step[name] for name in _NAMES] for step in steps], np.int64)

    def _place(self, slots: int) -> int:
        start = self.size
        self.size += slots * self.width
        return start

    def _add(self, layer: Layer, slots: np.ndarray, block: int) -> dict[str, int]:
        """Take a layer's weights, their slots, and how many columns of the dense weight make a block."""
        rows, outputs = layer.rows, layer.rows.outputs
        arrays = {"counts": self.counts, "indices": self.indices, "values": self.values, "bias": self.bias}
        place = {name: sum(map(len, array)) for name, array in arrays.items()} | {"dense": int(layer.dense)}
        bias = np.zeros(outputs, np.float32) if layer.bias is None else layer.bias.astype(np.float32)
        self.bias.append(np.pad(bias, (0, -outputs % GROUP)))
        if layer.dense:
            self._add_dense(rows.to_dense(), slots)
            return place | {"blocks": 1}
        blocks = max(1, -(-rows.columns // block))
        # weights lie in the order in which they are read: block by block, there row by row
        task = rows.indices // block * outputs + np.repeat(np.arange(outputs), np.diff(rows.indptr))
        order = np.argsort(task, kind="stable")
        self.counts.append(np.bincount(task, minlength=blocks * outputs))
        self.values.append(rows.values[order])
        self.indices.append(slots[rows.indices[order]] * self.width)
        return place | {"blocks": blocks}

    def _add_dense(self, weight: np.ndarray, slots: np.ndarray) -> None:
        """The same for all weights (O, K): those of GROUP channels stand side by side, one group behind the other."""
        padded = np.pad(weight, ((0, -len(weight) % GROUP), (0, 0)))
        groups = padded.reshape(-1, GROUP, len(slots))
        self.counts.append(np.full(len(groups), len(slots)))
        self.values.append(groups.transpose(0, 2, 1).reshape(-1))
        self.indices.append(slots * self.width)

    def _block(self, rows: Rows, unit: int, unit_bytes: int) -> int:
        """Return the columns of a block: whole units, as many as fit in the cache, or more to have enough weights."""
        enough = _ENOUGH * rows.size / max(1, len(rows.values))
        return max(_L1 // unit_bytes, math.ceil(enough / unit), 1) * unit

    def _linear(self, layer: Linear) -> tuple[dict[str, int], tuple[int, int, int]]:
        inputs, outputs = layer.rows.columns, layer.rows.outputs
        source, line = self._place(inputs), self.width
        step = self._add(layer, np.arange(inputs), self._block(layer.rows, 1, 4 * line))
        step |= {"source": source, "inner": source, "plane": line, "line": line, "pitch": 0, "stride": LANES}
        step |= {"rows": 1, "columns": 1, "channels": outputs, "sums": self._place(outputs + GROUP)}
        return step | {"relu": int(layer.relu), "pool": 1, "mean": 0}, (outputs, 1, 1)

    def _convolution(self, layer: Convolution, shape: tuple[int, ...]) -> tuple[dict[str, int], tuple[int, int, int]]:
        channels, height, width_in = shape
        kernel, padding, pool = layer.kernel, layer.padding, layer.pool
        rows, columns = (output_size(n, kernel, layer.stride, padding) // pool * pool for n in (height, width_in))
        high, wide = height + 2 * padding, width_in + 2 * padding
        line, plane = wide * self.width, high * wide * self.width
        source, outputs = self._place(channels * high * wide), layer.rows.outputs
        c, i, j = np.unravel_index(np.arange(layer.rows.columns), (channels, kernel, kernel))
        vectors = -(-columns // -(-columns // MOST))
        seen = kernel * ((vectors - 1) * layer.stride + kernel) * 4 * self.width  # bytes of a channel that a sum reads
        step = self._add(layer, (c * high + i) * wide + j, self._block(layer.rows, kernel**2, seen))
        step |= {"source": source, "inner": source + padding * (line + self.width), "plane": plane, "line": line}
        step |= {"pitch": layer.stride * line, "stride": layer.stride * self.width, "rows": rows, "columns": columns}
        step |= {"channels": outputs, "sums": self._place((outputs + GROUP) * pool * columns), "relu": int(layer.relu)}
        return step | {"pool": pool, "mean": int(layer.mean)}, (outputs, rows // pool, columns // pool)


class Program:
    """A sparse network laid out for this processor: `program(x)` computes what the network's layers say."""

    def __init__(self, network: Network) -> None:
        self._network, self._local = network, threading.local()
        self._built: dict[int, Any] = {}

    def _build(self, width: int) -> Any:
        if width not in self._built:
            b = _Builder(self._network, width)
            counts, indices = (np.concatenate(each).astype(np.int32) for each in (b.counts, b.indices))
            self._built[width] = b, (b.table, counts, indices, np.concatenate(b.values), np.concatenate(b.bias))
        return self._built[width]

    def _width(self, images: int) -> int:
        """Return how many images lie side by side."""
        if isinstance(self._network.layers[0], Convolution):  # has pixels side by side
            return LANES
        return min(WIDTH, max(1, -(-images // LANES)) * LANES)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return what `Network.__call__` promises."""
        builder, arrays = self._build(self._width(len(x)))
        first, width = builder.first, builder.width
        out = aligned(np.empty, len(x) * builder.features).reshape(len(x), *self._network.output_shape)
        places = width, len(x), first["inner"], first["plane"], first["line"], builder.last, builder.features
        x, flat = np.ascontiguousarray(x).reshape(-1), out.reshape(-1)
        parallel_for(self._part, -(-len(out) // width), builder, arrays, places, x, flat)
        return out

    def _part(self, builder: _Builder, arrays: Any, places: Any, x: np.ndarray, out: np.ndarray, *part: int) -> None:
        name = f"of_{builder.width}"
        if (memory := getattr(self._local, name, None)) is None:  # threads that share a program must not share memory
            memory = aligned(np.zeros, builder.size)
            setattr(self._local, name, memory)
        run(*arrays, builder.shape, places, x, memory, out, *part)
