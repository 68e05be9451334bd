"""Tiles of integer sums: some windows times some vectors of channels, kept in registers while bytes are multiplied.

As in `tiles.py`, a tile is a tuple of vectors, row after row, and becomes straight code. Here a vector holds 32-bit
sums, as many as the path of `instructions.py` has lanes; the path is a constant when a kernel is compiled: its index in
PATHS.

Memory is given by address, in bytes, as whole numbers. An array that is handed from one compiled function to the next
is counted up and down on the way, and its parts are copied; a row of a small network takes less time than that.
Whoever calls holds the arrays, and sees to their bounds.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from tinytorch.kernels.compiled.instructions import PATHS, call, splat

_I8, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
MAGIC = 12582912.0  # 1.5 * 2^23: added to a small number, it leaves the nearest whole one in the low bits, even at ties
MAGIC_BITS = 0x4B400000  # as it stands in memory
_ADDRESS = types.intp


class SumsType(types.Type):
    """A register of int32 sums."""

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__(f"int32x{lanes}")


@register_model(SumsType)
class _SumsModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(_I32, kind.lanes))


@intrinsic
def copy_bytes(typing, source, target, count):
    """Copy `count` bytes from one address to another."""

    def generate(context, builder, signature, args):
        cgutils.raw_memcpy(builder, pointer(builder, args[1], _I8), pointer(builder, args[0], _I8), args[2], _I64(1))
        return context.get_dummy_value()

    return types.void(_ADDRESS, _ADDRESS, types.intp), generate


@intrinsic
def store_byte(typing, address, code):
    """Write a code to an address."""

    def generate(context, builder, signature, args):
        builder.store(args[1], pointer(builder, args[0], _I8))
        return context.get_dummy_value()

    return types.void(_ADDRESS, types.uint8), generate


@intrinsic
def load_sum(typing, address):
    """Return the sum at an address."""
    return types.int32(_ADDRESS), lambda context, builder, signature, args: builder.load(
        pointer(builder, args[0], _I32)
    )


@intrinsic
def load_scale(typing, address):
    """Return the float32 at an address."""
    return (
        types.float32(_ADDRESS),
        lambda context, builder, signature, args: builder.load(pointer(builder, args[0], _F32)),
    )


def _constants(*kinds):
    return all(isinstance(kind, types.IntegerLiteral) for kind in kinds)


def pointer(builder, address, kind):
    """Return the pointer to something of that kind at an address."""
    return builder.inttoptr(address, kind.as_pointer())


def _vectors(builder, address, element, lanes, count):
    """Return `count` pointers to vectors, one behind the other."""
    size = lanes * (1 if element is _I8 else 4)
    places = [builder.add(address, _I64(v * size)) for v in range(count)]
    return [pointer(builder, place, ir.VectorType(element, lanes)) for place in places]


def _load(builder, address, element, lanes, count):
    align = 1 if element is _I8 else 4  # nothing more is known of the arrays
    return [builder.load(p, align=align) for p in _vectors(builder, address, element, lanes, count)]


def broadcast(builder, scalar, count):
    """Return a vector of `count` equal numbers."""
    kind = ir.VectorType(scalar.type, count)
    nothing = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(nothing, scalar, _I32(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(_I32, count), [0] * count))


def _rows(builder, tile, value, address, stride, width):
    """Yield the address of each row and its vectors."""
    for r in range(len(tile) // width):
        yield address, [builder.extract_value(value, r * width + v) for v in range(width)]
        address = builder.add(address, stride)


@intrinsic
def load_sums(typing, path, address, windows, vectors):
    """Return a tile whose rows are all what stands at the address; path, windows and vectors are constants."""
    if not _constants(path, windows, vectors):
        return None
    lanes, width = PATHS[path.literal_value].lanes, vectors.literal_value
    tile = types.UniTuple(SumsType(lanes), windows.literal_value * width)

    def generate(context, builder, signature, args):
        row = _load(builder, args[1], _I32, lanes, width)
        return context.make_tuple(builder, tile, row * windows.literal_value)

    return tile(path, _ADDRESS, windows, vectors), generate


@intrinsic
def add_dots(typing, path, tile, codes, step, weights, vectors, first, last):
    """Return tile + products of four codes of each window with four weights of each channel.

    The windows' codes are `step` bytes apart. Of the weights, four belong to each channel, channel after channel.
    The constants `first` and `last` leave so many windows out at the two ends: those that see only padding there.
    """
    if not _constants(path, vectors, first, last):
        return None
    lanes, width = PATHS[path.literal_value].lanes, vectors.literal_value
    multiply = PATHS[path.literal_value].step

    def generate(context, builder, signature, args):
        right, out = _load(builder, args[4], _I8, 4 * lanes, width), []
        seen = range(first.literal_value, len(tile) // width - last.literal_value)
        for r, (place, sums) in enumerate(_rows(builder, tile, args[1], args[2], args[3], width)):
            if r not in seen:
                out += sums
                continue
            word = broadcast(builder, builder.load(pointer(builder, place, _I32), align=1), lanes)
            left = builder.bitcast(word, ir.VectorType(_I8, 4 * lanes))
            out += [multiply(builder, total, left, weight) for total, weight in zip(sums, right, strict=True)]
        return context.make_tuple(builder, tile, out)

    return tile(path, tile, _ADDRESS, types.intp, _ADDRESS, vectors, first, last), generate


def _larger(builder, a, b):
    return builder.select(builder.icmp_signed(">", a, b), a, b)


@intrinsic
def larger_neighbours(typing, tile, vectors):
    """Return a tile of half as many rows: the larger sums of rows 0 and 1, 2 and 3, ...; a last one alone stays."""
    if not _constants(vectors):
        return None
    width = vectors.literal_value
    half = types.UniTuple(tile.dtype, (len(tile) // width + 1) // 2 * width)

    def generate(context, builder, signature, args):
        old, out = [builder.extract_value(args[0], n) for n in range(len(tile))], []
        for r in range(0, len(tile), 2 * width):
            upper, lower = old[r : r + width], old[r + width : r + 2 * width]
            out += [_larger(builder, a, b) for a, b in zip(upper, lower, strict=True)] if lower else upper
        return context.make_tuple(builder, half, out)

    return half(tile, vectors), generate


@intrinsic
def larger_of(typing, tile, address, stride, vectors):
    """Return the larger of each sum of a tile and that in memory, whose rows are `stride` bytes apart."""
    if not _constants(vectors):
        return None
    width, lanes = vectors.literal_value, tile.dtype.lanes

    def generate(context, builder, signature, args):
        out = []
        for place, sums in _rows(builder, tile, args[0], args[1], args[2], width):
            there = _load(builder, place, _I32, lanes, width)
            out += [_larger(builder, a, b) for a, b in zip(sums, there, strict=True)]
        return context.make_tuple(builder, tile, out)

    return tile(tile, _ADDRESS, types.intp, vectors), generate


@intrinsic
def store_sums(typing, tile, address, stride, vectors):
    """Write a tile, its rows `stride` bytes apart."""
    if not _constants(vectors):
        return None
    width, lanes = vectors.literal_value, tile.dtype.lanes

    def generate(context, builder, signature, args):
        for place, sums in _rows(builder, tile, args[0], args[1], args[2], width):
            for value, at in zip(sums, _vectors(builder, place, _I32, lanes, width), strict=True):
                builder.store(value, at, align=4)
        return context.get_dummy_value()

    return types.void(tile, _ADDRESS, types.intp, vectors), generate


@intrinsic
def store_codes(typing, tile, scales, lowest, highest, zero_point, address, stride, channels, vectors, plain):
    """Scale a tile, channel by channel, round it to codes, and write them, the rows `stride` bytes apart.

    Rounded is to the nearest whole number, the even one at ties. Then the zero point is added, and what lies outside
    of lowest ... highest becomes the nearer of the two. Of each row the first `channels` codes exist. If `plain`, a
    constant, that is all of them, 255 is the highest, and no scaled sum is beyond 2^22: then fewer instructions do.
    """
    if not _constants(vectors, plain):
        return None
    width, lanes = vectors.literal_value, tile.dtype.lanes
    floats = ir.VectorType(_F32, lanes)

    def generate(context, builder, signature, args):
        factors = _load(builder, args[1], _F32, lanes, width)
        low, high, zero = (broadcast(builder, number, lanes) for number in args[2:5])
        least, most = (builder.sitofp(builder.sub(limit, zero), floats) for limit in (low, high))
        masks = [first_lanes(builder, builder.sub(args[7], _I64(v * lanes)), lanes) for v in range(width)]
        for place, sums in _rows(builder, tile, args[0], args[5], args[6], width):
            for v, at in enumerate(_vectors(builder, place, _I8, lanes, width)):
                scaled = builder.fmul(builder.sitofp(sums[v], floats), factors[v])
                if plain.literal_value:
                    builder.store(_saturated(builder, scaled, least, zero), at, align=1)
                else:
                    store_masked(builder, rounded(builder, scaled, least, most, zero), at, masks[v])
        return context.get_dummy_value()

    numbers = types.int32, types.int32, types.int32
    return types.void(tile, _ADDRESS, *numbers, _ADDRESS, types.intp, types.intp, vectors, plain), generate


def first_lanes(builder, count, lanes):
    """Return the mask of the first `count` lanes."""
    limit = broadcast(builder, builder.trunc(count, _I32), lanes)
    return builder.icmp_signed("<", ir.Constant(ir.VectorType(_I32, lanes), list(range(lanes))), limit)


def store_masked(builder, codes, place, mask):
    """Write the bytes of the lanes that a mask names, and touch no other."""
    name = f"llvm.masked.store.v{codes.type.count}i8.p0"
    call(builder, name, ir.VoidType(), codes, place, _I32(1), mask)


def rounded(builder, x, low, high, zero):
    """Return the codes of numbers that are kept between low and high: their nearest whole number, plus zero."""
    x = builder.select(builder.fcmp_ordered(">", x, low), x, low)
    x = builder.select(builder.fcmp_ordered("<", x, high), x, high)
    bits = builder.bitcast(builder.fadd(x, splat(x.type, MAGIC)), zero.type)
    return builder.trunc(builder.add(bits, zero), ir.VectorType(_I8, x.type.count))


def _saturated(builder, x, low, zero):
    """Return the codes of numbers from low on, those beyond 255 being 255."""
    x = builder.select(builder.fcmp_ordered(">", x, low), x, low)
    bits = builder.bitcast(builder.fadd(x, splat(x.type, MAGIC)), zero.type)
    whole = builder.add(bits, builder.sub(zero, splat(zero.type, MAGIC_BITS)))
    most = splat(zero.type, 255)
    whole = builder.select(builder.icmp_unsigned("<", whole, most), whole, most)
    return builder.trunc(whole, ir.VectorType(_I8, x.type.count))
