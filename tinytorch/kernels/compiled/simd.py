"""Vector registers in Numba: a type for one register of float32 numbers, and LLVM's portable operations on it.

A `Vector` holds `LANES` numbers: 16 with AVX-512, 8 with AVX, 4 elsewhere (SSE, Neon).
Kernels are ordinary Python over these; LLVM chooses the instructions of the processor that it compiles for.
Arrays are flat and contiguous here, and places in them are counted in elements. Nothing checks bounds: the callers do.
"""

from __future__ import annotations

import operator

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model
from numba.np.arrayobj import populate_array

_FEATURES = llvm.get_host_cpu_features()
LANES = 16 if _FEATURES.get("avx512f") else 8 if _FEATURES.get("avx") else 4
REGISTERS = 16 if LANES == 8 or (LANES == 4 and _FEATURES.get("sse2")) else 32  # vector registers of the processor

_F32, _I32, _I64, _BIT = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.IntType(1)
_V, _VI, _MASK = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES), ir.VectorType(_BIT, LANES)


class _Register(types.Type):
    """LANES numbers of one kind; `ir_type` is LLVM's name for it."""

    def __init__(self, name, ir_type):
        self.ir_type = ir_type
        super().__init__(f"{name}x{LANES}")


class VectorType(_Register):
    """float32."""


class MaskType(_Register):
    """Truth values."""


@register_model(VectorType)
@register_model(MaskType)
class _RegisterModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, kind.ir_type)


vector, mask = VectorType("float32", _V), MaskType("bool", _MASK)


def _call(builder, name, result, *arguments):
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _suffix(kind):
    return f"v{kind.count}f32"


def _pointer(context, builder, array_type, array, index):
    """Return the address of element `index` of a flat array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _broadcast(builder, scalar):
    one = builder.insert_element(ir.Constant(_V, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, ir.Constant(_V, ir.Undefined), ir.Constant(_VI, [0] * LANES))


def _load(builder, pointer):
    return builder.load(builder.bitcast(pointer, _V.as_pointer()), align=4)  # 4: nothing is known of the arrays


def _store(builder, value, pointer):
    builder.store(value, builder.bitcast(pointer, _V.as_pointer()), align=4)


def _total(builder, x):
    half = LANES
    while half > 1:  # fold the upper half onto the lower one: the order of the sum is fixed
        half //= 2
        upper = ir.Constant(ir.VectorType(_I32, half), list(range(half, 2 * half)))
        lower = ir.Constant(ir.VectorType(_I32, half), list(range(half)))
        undefined = ir.Constant(x.type, ir.Undefined)
        x = builder.fadd(builder.shuffle_vector(x, undefined, lower), builder.shuffle_vector(x, undefined, upper))
    return builder.extract_element(x, ir.Constant(_I32, 0))


def _first(builder, count):
    """Return the mask of the first `count` lanes."""
    one = builder.insert_element(ir.Constant(_VI, ir.Undefined), builder.trunc(count, _I32), ir.Constant(_I32, 0))
    limit = builder.shuffle_vector(one, ir.Constant(_VI, ir.Undefined), ir.Constant(_VI, [0] * LANES))
    return builder.icmp_signed("<", ir.Constant(_VI, list(range(LANES))), limit)


def _load_first(builder, pointer, lanes):
    return _call(builder, f"llvm.masked.load.{_suffix(_V)}.p0", _V, pointer, _I32(4), lanes, ir.Constant(_V, None))


def _store_first(builder, value, pointer, lanes):
    _call(builder, f"llvm.masked.store.{_suffix(_V)}.p0", ir.VoidType(), value, pointer, _I32(4), lanes)


def _is_flat(array):
    return isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C" and array.dtype == types.float32


@intrinsic
def load(typing, array, index):
    """Read the vector that begins at array[index]."""
    if not _is_flat(array):
        return None

    def generate(context, builder, signature, args):
        return _load(builder, _pointer(context, builder, array, *args))

    return vector(array, types.intp), generate


@intrinsic
def load_first(typing, array, index, count):
    """Read `count` numbers from array[index] on; the other lanes are 0 and their memory is not touched."""
    if not _is_flat(array):
        return None

    def generate(context, builder, signature, args):
        return _load_first(builder, _pointer(context, builder, array, *args[:2]), _first(builder, args[2]))

    return vector(array, types.intp, types.intp), generate


@intrinsic
def store(typing, array, index, value):
    """Write a vector to array[index] and on."""
    if not _is_flat(array):
        return None

    def generate(context, builder, signature, args):
        _store(builder, args[2], _pointer(context, builder, array, *args[:2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def store_first(typing, array, index, value, count):
    """Write the first `count` lanes to array[index] and on; the memory behind them is not touched."""
    if not _is_flat(array):
        return None

    def generate(context, builder, signature, args):
        _store_first(builder, args[2], _pointer(context, builder, array, *args[:2]), _first(builder, args[3]))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector, types.intp), generate


@intrinsic
def broadcast(typing, scalar):
    """Repeat a number in every lane."""

    def generate(context, builder, signature, args):
        return _broadcast(builder, args[0])

    return vector(types.float32), generate


@intrinsic
def total(typing, value):
    """Add the lanes, pairwise."""

    def generate(context, builder, signature, args):
        return _total(builder, *args)

    return types.float32(vector), generate


def _elementwise(name, arity):
    """Return type and code of LLVM's operation `name` on vectors."""

    def generate(context, builder, signature, args):
        return _call(builder, f"llvm.{name}.{_suffix(_V)}", _V, *args)

    return vector(*[vector] * arity), generate


@intrinsic
def fma(typing, a, b, c):
    """a * b + c, rounded once."""
    return _elementwise("fma", 3)


@intrinsic
def rint(typing, x):
    """The nearest whole number, the even one between two."""
    return _elementwise("rint", 1)


@intrinsic
def sqrt(typing, x):
    """The square root."""
    return _elementwise("sqrt", 1)


@intrinsic
def power_of_two(typing, exponent):
    """2^n for whole n in -126 ... 127, written into the bits of the exponent; 0 for -127, infinity for 128."""

    def generate(context, builder, signature, args):
        biased = builder.add(builder.fptosi(args[0], _VI), ir.Constant(_VI, [127] * LANES))
        return builder.bitcast(builder.shl(biased, ir.Constant(_VI, [23] * LANES)), _V)

    return vector(vector), generate


@intrinsic
def where(typing, condition, a, b):
    """a in the lanes where the condition holds, b in the others."""

    def generate(context, builder, signature, args):
        return builder.select(*args)

    return vector(mask, vector, vector), generate


@intrinsic
def either(typing, a, b):
    """The lanes where one of two conditions holds, or both."""

    def generate(context, builder, signature, args):
        return builder.or_(*args)

    return mask(mask, mask), generate


def _binary(operation, name, result, *first):
    """Give an operator of Python its meaning for two vectors, or a vector and a number."""

    @intrinsic
    def on_vectors(typing, a, b):
        def generate(context, builder, signature, args):
            return getattr(builder, name)(*first, *args)

        return result(vector, vector), generate

    @overload(operation)
    def typed(a, b):
        if a is vector and b is vector:
            return lambda a, b: on_vectors(a, b)
        if a is vector and isinstance(b, types.Float | types.Integer):
            return lambda a, b: on_vectors(a, broadcast(numba.float32(b)))
        if b is vector and isinstance(a, types.Float | types.Integer):
            return lambda a, b: on_vectors(broadcast(numba.float32(a)), b)
        return None


_binary(operator.add, "fadd", vector)
_binary(operator.sub, "fsub", vector)
_binary(operator.mul, "fmul", vector)
_binary(operator.truediv, "fdiv", vector)
_binary(operator.lt, "fcmp_ordered", mask, "<")
_binary(operator.gt, "fcmp_ordered", mask, ">")
_binary(operator.ne, "fcmp_unordered", mask, "!=")  # true for NaN, as in Python


def _borrowed(context, builder, result, data, size):
    """Return a flat array over memory that somebody else keeps alive."""
    new, item = context.make_array(result)(context, builder), context.get_constant(types.intp, 4)
    populate_array(
        new,
        data=data,
        shape=cgutils.pack_array(builder, [size]),
        strides=cgutils.pack_array(builder, [item]),
        itemsize=item,
        meminfo=None,
    )
    return new._getvalue()


_FLAT = types.Array(types.float32, 1, "C")


@intrinsic
def flat(typing, array):
    """The memory from the first element of an array on, as a flat array; the caller counts with the strides."""
    if not (isinstance(array, types.Array) and array.dtype == types.float32):
        return None

    def generate(context, builder, signature, args):
        data = context.make_array(array)(context, builder, args[0]).data
        size = context.get_constant(types.intp, 1 << 60)
        return _borrowed(context, builder, _FLAT, builder.bitcast(data, _F32.as_pointer()), size)

    return _FLAT(array), generate


@intrinsic
def array_at(typing, address, size):
    """The `size` numbers that lie at an address, as a flat array; the caller keeps them alive."""

    def generate(context, builder, signature, args):
        return _borrowed(context, builder, _FLAT, builder.inttoptr(args[0], _F32.as_pointer()), args[1])

    return _FLAT(types.intp, types.intp), generate
