"""Tiles: some rows of some vectors, kept in registers while a kernel works on them.

A tile is a tuple of vectors, row after row. How many there are is a constant when a kernel is compiled, so that each of
the operations here becomes straight code without a loop. Memory and places are those of `simd.py`.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinytorch.kernels.compiled.simd import (
    _I32,
    _I64,
    _V,
    _VI,
    LANES,
    _broadcast,
    _call,
    _first,
    _is_flat,
    _load,
    _load_first,
    _pointer,
    _store,
    _store_first,
    _suffix,
    vector,
)


@intrinsic
def zeros(typing, count):
    """Return a tile of `count` vectors of zeros; the count is a constant."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    tile = types.UniTuple(vector, count.literal_value)

    def generate(context, builder, signature, args):
        return ir.Constant(context.get_value_type(tile), None)

    return tile(count), generate


@intrinsic
def load_tile(typing, array, index, count):
    """Read `count` vectors, one behind the other, from array[index] on; the count is a constant."""
    if not (_is_flat(array) and isinstance(count, types.IntegerLiteral)):
        return None
    tile = types.UniTuple(vector, count.literal_value)

    def generate(context, builder, signature, args):
        pointer = _pointer(context, builder, array, *args[:2])
        vectors = [_load(builder, builder.gep(pointer, [_I64(v * LANES)])) for v in range(tile.count)]
        return context.make_tuple(builder, tile, vectors)

    return tile(array, types.intp, count), generate


@intrinsic
def add_outer_product(typing, tile, array, index, stride, row):
    """Return tile + column x row: tile[r * len(row) + v] + array[index + r * stride] * row[v], one fma each."""
    if not (_is_flat(array) and len(tile) % len(row) == 0):
        return None
    vectors, rows = len(row), len(tile) // len(row)

    def generate(context, builder, signature, args):
        old, _, _, step, right = args
        place, out = args[2], []
        for r in range(rows):
            number = builder.load(_pointer(context, builder, array, args[1], place), align=4)
            number = _broadcast(builder, number)
            for v in range(vectors):
                old_sum, factor = builder.extract_value(old, r * vectors + v), builder.extract_value(right, v)
                out.append(_call(builder, f"llvm.fma.{_suffix(_V)}", _V, number, factor, old_sum))
            place = builder.add(place, step)
        return context.make_tuple(builder, tile, out)

    return tile(tile, array, types.intp, types.intp, row), generate


@intrinsic
def store_tile(typing, tile, array, index, stride, width):
    """Write a tile whose rows have `width` vectors (a constant) to array[index], row after row `stride` apart."""
    if not (_is_flat(array) and isinstance(width, types.IntegerLiteral)):
        return None
    vectors = width.literal_value

    def generate(context, builder, signature, args):
        place = args[2]
        for r in range(len(tile) // vectors):
            pointer = _pointer(context, builder, array, args[1], place)
            for v in range(vectors):
                value = builder.extract_value(args[0], r * vectors + v)
                _store(builder, value, builder.gep(pointer, [_I64(v * LANES)]))
            place = builder.add(place, args[3])
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, types.intp, width), generate


@intrinsic
def add_dot_products(typing, tile, a, i, a_stride, b, j, b_stride, rows):
    """Return tile + products of LANES numbers of `rows` (a constant) rows of a with as many of each row of b."""
    if not (_is_flat(a) and _is_flat(b) and isinstance(rows, types.IntegerLiteral)):
        return None
    count = rows.literal_value

    def generate(context, builder, signature, args):
        def read(kind, array, place, step, number):
            places = [builder.add(place, builder.mul(step, _I64(n))) for n in range(number)]
            return [_load(builder, _pointer(context, builder, kind, array, p)) for p in places]

        left = read(a, args[1], args[2], args[3], count)
        right = read(b, args[4], args[5], args[6], len(tile) // count)
        out = []
        for r, x in enumerate(left):
            for c, y in enumerate(right):
                old = builder.extract_value(args[0], r * len(right) + c)
                out.append(_call(builder, f"llvm.fma.{_suffix(_V)}", _V, x, y, old))
        return context.make_tuple(builder, tile, out)

    return tile(tile, a, types.intp, types.intp, b, types.intp, types.intp, rows), generate


def _totals(builder, vectors):
    """Return the sum of the lanes of each of some vectors, a power of two of them: two are folded into one at once."""
    parts, size = 1, LANES
    while len(vectors) > 1 or size > 1:
        single = len(vectors) == 1
        size //= 2
        firsts = [2 * size * part + i for part in range(parts) for i in range(size)]
        if not single:
            firsts += [LANES + i for i in firsts]
            parts *= 2
        kind, folded = ir.VectorType(_I32, len(firsts)), []
        for a, b in zip(vectors[::2], vectors[::2] if single else vectors[1::2], strict=True):
            low, high = (ir.Constant(kind, [i + shift for i in firsts]) for shift in (0, size))
            folded.append(builder.fadd(builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)))
        vectors = folded
    return vectors[0]


@intrinsic
def store_totals(typing, tile, array, index, stride, width):
    """Write the sum of the lanes of each vector: rows of `width` (a constant) numbers, `stride` apart."""
    if not (_is_flat(array) and isinstance(width, types.IntegerLiteral)):
        return None

    def generate(context, builder, signature, args):
        together = min(width.literal_value, LANES)
        for n in range(0, len(tile), together):
            row, column = divmod(n, width.literal_value)
            place = builder.add(args[2], builder.add(builder.mul(args[3], _I64(row)), _I64(column)))
            sums = _totals(builder, [builder.extract_value(args[0], n + v) for v in range(together)])
            pointer = builder.bitcast(_pointer(context, builder, array, args[1], place), sums.type.as_pointer())
            builder.store(sums, pointer, align=4)
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, types.intp, width), generate


@intrinsic
def repeat(typing, row, count):
    """Return a tile of `count` (a constant) equal rows."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    tile = types.UniTuple(vector, len(row) * count.literal_value)

    def generate(context, builder, signature, args):
        vectors = [builder.extract_value(args[0], v) for v in range(len(row))]
        return context.make_tuple(builder, tile, vectors * count.literal_value)

    return tile(row, count), generate


@intrinsic
def relu_tile(typing, tile):
    """max(x, 0) of every number; NaN stays."""

    def generate(context, builder, signature, args):
        zero, out = ir.Constant(_V, None), []
        for n in range(len(tile)):
            x = builder.extract_value(args[0], n)
            out.append(builder.select(builder.fcmp_ordered("<", x, zero), zero, x))
        return context.make_tuple(builder, tile, out)

    return tile(tile), generate


def _corner(context, builder, tile, width, array, args):
    """Yield (number, address, mask) of the vectors of a tile of which only the first rows and columns exist."""
    memory, index, stride, rows, columns = args
    for n in range(len(tile)):
        r, v = divmod(n, width)
        place = builder.add(index, builder.add(builder.mul(stride, _I64(r)), _I64(v * LANES)))
        rest = builder.sub(columns, _I64(v * LANES))
        count = builder.select(builder.icmp_signed("<", _I64(r), rows), rest, _I64(0))
        yield n, _pointer(context, builder, array, memory, place), _first(builder, count)


@intrinsic
def store_corner(typing, tile, array, index, stride, rows, columns, width):
    """Write the first rows and columns of a tile, whose rows have `width` vectors (a constant), to array[index]."""
    if not (_is_flat(array) and isinstance(width, types.IntegerLiteral)):
        return None

    def generate(context, builder, signature, args):
        for n, pointer, lanes in _corner(context, builder, tile, width.literal_value, array, args[1:6]):
            _store_first(builder, builder.extract_value(args[0], n), pointer, lanes)
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, types.intp, types.intp, types.intp, width), generate


@intrinsic
def add_corner(typing, tile, array, index, stride, rows, columns, width):
    """Return tile + what stands at array[index], of which only the first rows and columns exist."""
    if not (_is_flat(array) and isinstance(width, types.IntegerLiteral)):
        return None

    def generate(context, builder, signature, args):
        out = []
        for n, pointer, lanes in _corner(context, builder, tile, width.literal_value, array, args[1:6]):
            out.append(builder.fadd(builder.extract_value(args[0], n), _load_first(builder, pointer, lanes)))
        return context.make_tuple(builder, tile, out)

    return tile(tile, array, types.intp, types.intp, types.intp, types.intp, width), generate


@intrinsic
def load_spread(typing, array, index, step, count):
    """Read `count` (a constant) vectors that begin `step` numbers apart, the first at array[index]."""
    if not (_is_flat(array) and isinstance(count, types.IntegerLiteral)):
        return None
    tile = types.UniTuple(vector, count.literal_value)

    def generate(context, builder, signature, args):
        place, vectors = args[1], []
        for _ in range(tile.count):
            vectors.append(_load(builder, _pointer(context, builder, array, args[0], place)))
            place = builder.add(place, args[2])
        return context.make_tuple(builder, tile, vectors)

    return tile(array, types.intp, types.intp, count), generate


@intrinsic
def turn(typing, tile):
    """Return a tile of LANES vectors with rows for columns."""
    if len(tile) != LANES:
        return None

    def generate(context, builder, signature, args):
        rows = [builder.extract_value(args[0], n) for n in range(LANES)]
        low, high = ([n // 2 + half + n % 2 * LANES for n in range(LANES)] for half in (0, LANES // 2))
        for _ in range(LANES.bit_length() - 1):  # each round deals the rows out like a perfect shuffle of cards
            dealt = []
            for a, b in zip(rows[: LANES // 2], rows[LANES // 2 :], strict=True):
                dealt += [builder.shuffle_vector(a, b, ir.Constant(_VI, lanes)) for lanes in (low, high)]
            rows = dealt
        return context.make_tuple(builder, tile, rows)

    return tile(tile), generate
