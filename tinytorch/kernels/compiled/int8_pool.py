"""Pooling of codes, the channels of a pixel sixteen at a time."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinytorch.kernels.compiled.dot import SumsType, broadcast, first_lanes, pointer, rounded, store_masked
from tinytorch.kernels.compiled.instructions import call, splat
from tinytorch.kernels.compiled.jit import jit

_LANES = 16  # codes at a time, whatever the path: LLVM cuts them into the registers that there are
_SUMS = SumsType(_LANES)
_CODES, _WHOLE, _FLOATS = (ir.VectorType(kind, _LANES) for kind in (ir.IntType(8), ir.IntType(32), ir.FloatType()))


@intrinsic
def _load(typing, address, count):
    """Return the first `count` codes at an address, and zeros; the bytes behind them are not touched."""

    def generate(context, builder, signature, args):
        place, mask = pointer(builder, args[0], _CODES), first_lanes(builder, args[1], _LANES)
        name, nothing = f"llvm.masked.load.v{_LANES}i8.p0", ir.Constant(_CODES, None)
        codes = call(builder, name, _CODES, place, ir.IntType(32)(1), mask, nothing)
        return builder.zext(codes, _WHOLE)

    return _SUMS(types.intp, types.intp), generate


@intrinsic
def _add(typing, a, b):
    """Return a + b, number by number."""
    return _SUMS(_SUMS, _SUMS), lambda context, builder, signature, args: builder.add(*args)


@intrinsic
def _larger(typing, a, b):
    """Return the larger of a and b, number by number."""

    def generate(context, builder, signature, args):
        return builder.select(builder.icmp_signed(">", *args), *args)

    return _SUMS(_SUMS, _SUMS), generate


@intrinsic
def _store(typing, value, divisor, address, count):
    """Write the first `count` numbers, divided and rounded, the even one at ties, as codes."""

    def generate(context, builder, signature, args):
        quotient = builder.fdiv(builder.sitofp(args[0], _FLOATS), broadcast(builder, args[1], _LANES))
        codes = rounded(builder, quotient, splat(_FLOATS, 0.0), splat(_FLOATS, 255.0), splat(_WHOLE, 0))
        store_masked(builder, codes, pointer(builder, args[2], _CODES), first_lanes(builder, args[3], _LANES))
        return context.get_dummy_value()

    return types.void(_SUMS, types.float32, types.intp, types.intp), generate


@jit
def pool_row(source, pitch, step, kernel, mean, target, columns, channels):
    """Write one row of `columns` results to the address `target`.

    Windows of kernel x kernel codes are `step` bytes apart, their rows `pitch`; the first begins at `source`.
    """
    divisor = np.float32(kernel * kernel if mean else 1)
    for x in range(columns):
        for c in range(0, channels, _LANES):
            count, start = channels - c, source + x * step + c
            result = _load(start, count)
            for i in range(kernel):
                for j in range(1 if i == 0 else 0, kernel):
                    codes = _load(start + i * pitch + j * channels, count)
                    result = _add(result, codes) if mean else _larger(result, codes)
            _store(result, divisor, target + x * channels + c, count)
