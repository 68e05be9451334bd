"""A few vectors times a matrix that is mostly zero: of CSR's rows, one weight of each of many outputs at a time.

Rows that are read one by one gather their inputs, number by number, and add up lanes at their end. Here a lane belongs
to an output. Outputs go in tiles of OUTPUTS, inputs in chunks of CHUNK, so few that they stay in registers, from which
one instruction picks a number for each lane (`vpermi2ps` of AVX-512, `vpermps` of AVX2). In step s of a tile and a
chunk, each output multiplies its s-th weight with the input of that weight. There are as many steps as the output of
the most weights needs; the others are filled up with zeros, which multiply a zero whatever stands in the input. So that
outputs of many weights meet in one tile, they are sorted by their number.

What `pack` writes, each part from a new line of the cache on:

* int64: the number of steps of all tiles and chunks;
* int32 for each place in the tiles: which output it is;
* a byte for each tile and chunk: its steps;
* OUTPUTS float32 for each step: weights;
* OUTPUTS bytes for each step: which number of the chunk each of them multiplies.

The other way that was tried keeps a bit for each weight, and spreads those that are not zero over a register
(`vexpandps`). It reads fewer bytes, but needs an instruction for every LANES weights, zero or not: with a GPT of 70 or
90 % zeros it was hardly faster than all weights as they are, where this one takes half of the time or less.

Source: Kreutzer et al., "A unified sparse matrix data format for efficient general sparse matrix-vector multiplication
on modern processors with wide SIMD units" (2014): SELL-C-sigma. Picking from registers is ours.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinytorch.kernels.compiled.instructions import features, splat
from tinytorch.kernels.compiled.jit import jit
from tinytorch.kernels.compiled.layout import in_one_piece
from tinytorch.kernels.compiled.simd import _I64, _V, _VI, LANES, REGISTERS, _call, _suffix
from tinytorch.kernels.compiled.tiles import load_tile, store_tile, zeros
from tinytorch.kernels.sparse import Rows

CAN_PICK = LANES == 16 or (LANES == 8 and "avx2" in features())  # elsewhere zeros are multiplied, too
_SEEN = LANES // 8  # registers that one instruction picks from
_VECTORS = 32 // LANES
CHUNK, OUTPUTS = _SEEN * LANES, _VECTORS * LANES
_MANY = 4 if REGISTERS == 32 else 2  # vectors at a time that share what is read of the weights
_LINE = 64


def pack(rows: Rows) -> np.ndarray:
    """Return what `multiply` reads, in one piece that begins where a line of the cache begins."""
    dense = rows.to_dense()
    order = np.argsort(-np.count_nonzero(dense, axis=1), kind="stable")
    padded = np.pad(dense[order], ((0, -rows.outputs % OUTPUTS), (0, -rows.columns % CHUNK)))
    chunks = padded.shape[1] // CHUNK
    blocks = padded.reshape(-1, OUTPUTS, chunks, CHUNK).transpose(0, 2, 3, 1)
    places = np.argsort(blocks == 0, axis=2, kind="stable")  # first those of weights that are kept
    counts = np.count_nonzero(blocks, axis=2).max(axis=2)
    steps = np.arange(CHUNK) < counts[:, :, None]
    values = np.take_along_axis(blocks, places, 2)[steps]
    parts = np.array([len(values)]), np.pad(order, (0, -len(order) % OUTPUTS)).astype(np.int32), counts.astype(np.uint8)
    return in_one_piece([*parts, values, places[steps].astype(np.uint8)], _LINE)


@intrinsic
def _whole(typing, address, bits):
    """Return the whole number without a sign that lies at an address; `bits` is a constant."""
    if not isinstance(bits, types.IntegerLiteral):
        return None
    kind = ir.IntType(bits.literal_value)

    def generate(context, builder, signature, args):
        number = builder.load(builder.inttoptr(args[0], kind.as_pointer()), align=kind.width // 8)
        return builder.zext(number, _I64) if kind.width < 64 else number

    return types.int64(types.int64, bits), generate


def _pick(builder, seen, places):
    """Return the numbers at some places of one register or two."""
    if LANES == 16:
        return _call(builder, "llvm.x86.avx512.vpermi2var.ps.512", _V, seen[0], places, seen[1])
    return _call(builder, "llvm.x86.avx2.permps", _V, seen[0], places)


@intrinsic
def _add_step(typing, tile, seen, values, places):
    """Return tile + a step's weights times the numbers that they pick, for each vector whose chunk `seen` holds."""

    def generate(context, builder, signature, args):
        out = [builder.extract_value(args[0], n) for n in range(len(tile))]
        held = [builder.extract_value(args[1], n) for n in range(len(seen))]
        small = ir.VectorType(ir.IntType(8), LANES)
        for v in range(_VECTORS):
            at, place = builder.add(args[2], _I64(4 * LANES * v)), builder.add(args[3], _I64(LANES * v))
            weight = builder.load(builder.inttoptr(at, _V.as_pointer()), align=4 * LANES)
            place = builder.zext(builder.load(builder.inttoptr(place, small.as_pointer()), align=LANES), _VI)
            kept = builder.fcmp_unordered("!=", weight, splat(_V, 0.0))
            for r in range(len(seen) // _SEEN):
                picked = builder.select(kept, _pick(builder, held[_SEEN * r : _SEEN * (r + 1)], place), splat(_V, 0.0))
                n = r * _VECTORS + v
                out[n] = _call(builder, f"llvm.fma.{_suffix(_V)}", _V, weight, picked, out[n])
        return context.make_tuple(builder, tile, out)

    return tile(tile, seen, types.int64, types.int64), generate


@jit
def _lay_out(x, first, inputs, many, chunk, together):
    """Write `many` vectors of x from `first` on chunk by chunk, those of one chunk behind one another."""
    for r in range(many):
        for k in range(0, inputs, chunk):
            source, target = (first + r) * inputs + k, (k * many) + r * chunk
            for i in range(min(chunk, inputs - k)):
                together[target + i] = x[source + i]


@cache
def _sums(many: int):
    """Compile the sums of `many` vectors."""
    size, registers, chunk, lanes, vectors = many * _VECTORS, many * _SEEN, CHUNK, OUTPUTS, _VECTORS

    @jit
    def sums(x, at, chunks, counts, values, places, tiles, out):
        for t in range(tiles):
            tile = zeros(size)
            for c in range(chunks):
                seen = load_tile(x, at + c * many * chunk, registers)
                for _ in range(_whole(counts, 8)):
                    tile = _add_step(tile, seen, values, places)
                    values += 4 * lanes
                    places += lanes
                counts += 1
            store_tile(tile, out, t * lanes, tiles * lanes, vectors)

    return sums


@cache
def multiplier():
    """Compile the product."""
    one, several, many, lanes, chunk, line = _sums(1), _sums(_MANY), _MANY, OUTPUTS, CHUNK, _LINE

    @jit
    def multiply(x, rows, inputs, packed, bias, outputs, out):
        """Write `rows` vectors times the matrix whose packed form lies at an address, plus bias, to out, all flat."""
        tiles, chunks = -(-outputs // lanes), -(-inputs // chunk)
        order = packed + line
        counts = order + 4 * lanes * tiles
        values = counts + -(-tiles * chunks // line) * line
        places = values + 4 * lanes * _whole(packed, 64)
        ready = rows == 1 and inputs % chunk == 0  # as it lies
        together = np.zeros(0 if ready else many * chunks * chunk, np.float32)
        sums = np.empty((1 if ready else many) * tiles * lanes, np.float32)
        r = 0
        while r < rows:
            count = many if r + many <= rows else 1
            if count == many:
                _lay_out(x, r, inputs, many, chunk, together)
                several(together, 0, chunks, counts, values, places, tiles, sums)
            elif inputs % chunk == 0:
                one(x, r * inputs, chunks, counts, values, places, tiles, sums)
            else:
                together[:] = 0
                _lay_out(x, r, inputs, 1, chunk, together)
                one(together, 0, chunks, counts, values, places, tiles, sums)
            for b in range(count):
                for n in range(outputs):
                    o = _whole(order + 4 * n, 32)
                    out[(r + b) * outputs + o] = sums[b * tiles * lanes + n] + bias[o]
            r += count

    return multiply
