"""How processors multiply bytes: the dot product of four codes with four weights, in every lane of a register.

A path is one way to do that. Codes are unsigned, weights signed, sums 32 bits wide, and every path gives the same sums
to the last bit: none of them saturates on the way. They are written in LLVM's own language, so that this module needs
llvmlite alone, and what a path emits can be looked at for processors that are not at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

_I16, _I32 = ir.IntType(16), ir.IntType(32)


@cache
def features() -> frozenset[str]:
    """Return LLVM's names of what this processor has."""
    try:
        return frozenset(name for name, has in llvm.get_host_cpu_features().items() if has)
    except RuntimeError:  # LLVM cannot tell on every system
        return frozenset()


def call(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: Any) -> Any:
    """Call a function of LLVM's own by its name."""
    kind = ir.FunctionType(result, [a.type for a in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def splat(kind: ir.VectorType, value: float) -> ir.Constant:
    """Return a vector of equal numbers."""
    return ir.Constant(kind, [value] * kind.count)


def vpdpbusd(builder: ir.IRBuilder, total: Any, codes: Any, weights: Any) -> Any:
    """Use Intel's instruction, of 256 or 512 bits; AMD has it from Zen 4 on."""
    if llvm.llvm_version_info < (22,):  # four bytes were one number then
        codes, weights = (builder.bitcast(operand, total.type) for operand in (codes, weights))
    return call(builder, f"llvm.x86.avx512.vpdpbusd.{32 * total.type.count}", total.type, total, codes, weights)


def _pmaddwd(builder: ir.IRBuilder, total: Any, codes: Any, weights: Any) -> Any:
    # vpmaddubsw would take the bytes as they are, but saturates: 255 * 127 * 2 does not fit into 16 bits
    pairs = ir.VectorType(_I16, 16)
    codes, weights, eight = builder.bitcast(codes, pairs), builder.bitcast(weights, pairs), splat(pairs, 8)
    even = builder.and_(codes, splat(pairs, 255)), builder.ashr(builder.shl(weights, eight), eight)
    odd = builder.lshr(codes, eight), builder.ashr(weights, eight)
    for left, right in (even, odd):
        total = builder.add(total, call(builder, "llvm.x86.avx2.pmadd.wd", total.type, left, right))
    return total


def sdot(builder: ir.IRBuilder, total: Any, left: Any, right: Any) -> Any:
    """Use Arm's instruction for signed bytes on both sides."""
    return call(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", total.type, total, left, right)


def _shifted_sdot(builder: ir.IRBuilder, total: Any, codes: Any, weights: Any) -> Any:
    # codes are unsigned: take 128 from each, and add 2 * 64 times the weights, which serve a whole tile of sums
    half = sdot(builder, splat(total.type, 0), weights, splat(weights.type, 64))
    total = builder.add(total, builder.shl(half, splat(total.type, 1)))
    return sdot(builder, total, weights, builder.xor(codes, splat(codes.type, -128)))


def _usdot(builder: ir.IRBuilder, total: Any, codes: Any, weights: Any) -> Any:
    return call(builder, "llvm.aarch64.neon.usdot.v4i32.v16i8", total.type, total, codes, weights)


def _widened(builder: ir.IRBuilder, total: Any, codes: Any, weights: Any) -> Any:
    codes, weights = builder.bitcast(codes, total.type), builder.bitcast(weights, total.type)
    for byte in range(4):
        code = builder.and_(builder.lshr(codes, splat(total.type, 8 * byte)), splat(total.type, 255))
        weight = builder.ashr(builder.shl(weights, splat(total.type, 24 - 8 * byte)), splat(total.type, 24))
        total = builder.add(total, builder.mul(code, weight))
    return total


@dataclass(frozen=True)
class DotPath:
    """One way to add codes (4 * lanes bytes) times weights, four by four, to `lanes` sums: `step` emits it.

    `needs` are LLVM's names of the processor's features, any one of these sets; `registers` are its vectors.
    """

    name: str
    needs: tuple[frozenset[str], ...]
    lanes: int
    registers: int
    step: Callable[[ir.IRBuilder, Any, Any, Any], Any]

    def runs_here(self) -> bool:
        """Return whether this processor has what the path needs."""
        return any(need <= features() for need in self.needs)


def _path(name: str, needs: tuple[set[str], ...], lanes: int, registers: int, step: Callable[..., Any]) -> DotPath:
    return DotPath(name, tuple(map(frozenset, needs)), lanes, registers, step)


# From the fastest on. Of two that a processor has, the first one is taken.
PATHS = (
    _path("avx512-vnni", ({"avx512vnni"},), 16, 32, vpdpbusd),
    _path("avx-vnni", ({"avxvnni"}, {"avx512vnni", "avx512vl"}), 8, 16, vpdpbusd),
    _path("arm-usdot", ({"i8mm"},), 4, 32, _usdot),
    _path("arm-sdot", ({"dotprod"},), 4, 32, _shifted_sdot),
    _path("avx2", ({"avx2"},), 8, 16, _pmaddwd),
    _path("generic", (set(),), 4, 16, _widened),
)


def paths_here() -> tuple[DotPath, ...]:
    """Return the paths that this processor can run, the fastest first."""
    return tuple(path for path in PATHS if path.runs_here())
