"""The most arithmetic that one core of this processor does in a second, by kernels that do nothing else.

A kernel is a loop over accumulators in registers, enough of them that none waits for its own last result. It is written
in LLVM's own language and translated without its optimizer: what stands here is what runs, and no clever compiler finds
that the result could be had for less. Every accumulator counts the rounds, so a kernel that skipped work is caught.

llvmlite, which comes with Numba, does the translation.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from tinytorch.kernels.compiled.instructions import call, features, sdot, vpdpbusd

_I8, _I16, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_STREAM = 16  # vectors that the left operand runs through, round by round


@dataclass(frozen=True)
class Path:
    """One way to multiply and add: `step` emits accumulator + left * right, for `operations` operations.

    `needs` are LLVM's names of the processor's features, any one of these sets; `accumulators` are what the registers
    hold. `own` is set if each accumulator must have a right operand of its own, because its product would be shared.
    """

    name: str
    needs: tuple[frozenset[str], ...]
    operand: ir.VectorType
    sums: ir.VectorType
    accumulators: int
    step: Callable[[ir.IRBuilder, Any, Any, Any], Any]
    own: bool = False

    @property
    def operations(self) -> int:
        """Of one step: a multiplication and an addition for each pair of numbers."""
        return 2 * self.operand.count

    def runs_here(self) -> bool:
        """Return whether this processor has what the path needs."""
        return any(need <= features() for need in self.needs)


def _fma(builder: ir.IRBuilder, total: Any, left: Any, right: Any) -> Any:
    return call(builder, f"llvm.fmuladd.v{total.type.count}f32", total.type, left, right, total)


def _maddubs(builder: ir.IRBuilder, total: Any, left: Any, right: Any) -> Any:
    pairs = call(builder, "llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(_I16, 16), left, right)
    ones = ir.Constant(pairs.type, [1] * 16)
    return builder.add(total, call(builder, "llvm.x86.avx2.pmadd.wd", total.type, pairs, ones))


def _widened(builder: ir.IRBuilder, total: Any, left: Any, right: Any) -> Any:
    return builder.add(total, builder.mul(*(builder.sext(operand, total.type) for operand in (left, right))))


def _floats(name: str, needs: set[str], lanes: int, accumulators: int) -> Path:
    vector = ir.VectorType(_F32, lanes)
    return Path(name, (frozenset(needs),), vector, vector, accumulators, _fma)


def _bytes(
    name: str, needs: tuple[set[str], ...], lanes: int, accumulators: int, step: Callable[..., Any], own: bool = False
) -> Path:
    sums = ir.VectorType(_I32, lanes if step is _widened else lanes // 4)
    return Path(name, tuple(map(frozenset, needs)), ir.VectorType(_I8, lanes), sums, accumulators, step, own)


FLOAT32 = (
    _floats("AVX-512: 16 float32", {"avx512f"}, 16, 24),
    _floats("AVX and FMA: 8 float32", {"avx", "fma"}, 8, 12),
    _floats("Neon: 4 float32", {"neon"}, 4, 24),
    _floats("4 float32", set(), 4, 12),
)
INT8 = (
    _bytes("AVX-512 VNNI: vpdpbusd, 64 int8", ({"avx512vnni"},), 64, 24, vpdpbusd),
    _bytes("AVX-VNNI: vpdpbusd, 32 int8", ({"avxvnni"}, {"avx512vnni", "avx512vl"}), 32, 12, vpdpbusd),
    _bytes("AVX2: vpmaddubsw, 32 int8", ({"avx2"},), 32, 12, _maddubs, own=True),
    _bytes("Arm: sdot, 16 int8", ({"dotprod"},), 16, 24, sdot),
    _bytes("widened to int32, 16 int8", (set(),), 16, 2, _widened, own=True),
)


def kernel_module(path: Path) -> ir.Module:
    """Emit `void kernel(int64 rounds, left, right, sums)`, which adds left * right to all sums `rounds` times.

    left: _STREAM vectors, of which each round takes the next; right: a vector, or one for each accumulator; sums: a
    vector for each accumulator.
    """
    module = ir.Module()
    pointer = ir.PointerType()
    kind = ir.FunctionType(ir.VoidType(), [_I64, pointer, pointer, pointer])
    function = ir.Function(module, kind, "kernel")
    rounds, left, right, sums = function.args
    entry, loop, end = (function.append_basic_block(name) for name in ("entry", "loop", "end"))
    builder = ir.IRBuilder(entry)

    def place(base: Any, index: Any, vector: ir.VectorType) -> Any:
        return builder.gep(base, [index], source_etype=vector)

    starts = [builder.load(place(sums, _I64(i), path.sums), align=4, typ=path.sums) for i in range(path.accumulators)]
    builder.branch(loop)
    builder.position_at_end(loop)
    done = builder.phi(_I64)
    done.add_incoming(_I64(0), entry)
    totals = [builder.phi(path.sums) for _ in starts]
    at = place(left, builder.and_(done, _I64(_STREAM - 1)), path.operand)
    operand = builder.load(at, align=4, typ=path.operand)
    rights = [
        builder.load(place(right, _I64(i), path.operand), align=4, typ=path.operand)
        for i in range(path.accumulators if path.own else 1)
    ]
    results = [path.step(builder, total, operand, rights[i % len(rights)]) for i, total in enumerate(totals)]
    for total, start, result in zip(totals, starts, results, strict=True):
        total.add_incoming(start, entry)
        total.add_incoming(result, loop)
    following = builder.add(done, _I64(1))
    done.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, rounds), loop, end)
    builder.position_at_end(end)
    for i, result in enumerate(results):
        builder.store(result, place(sums, _I64(i), path.sums), align=4)
    builder.ret_void()
    return module


class Kernel:
    """The machine code of a path, on this processor."""

    def __init__(self, path: Path) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.path = path
        triple = llvm.get_process_triple() + (
            "-elf" if sys.platform == "win32" else ""
        )  # the loader knows no other there
        named = ",".join(f"+{name}" for name in features())
        target = llvm.Target.from_triple(triple)
        machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=named, opt=3)
        emitted = kernel_module(path)
        emitted.triple = triple
        module = llvm.parse_assembly(str(emitted))
        self._engine = llvm.create_mcjit_compiler(module, machine)  # owns the code
        self._engine.finalize_object()
        address = self._engine.get_function_address("kernel")
        self._function = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * 3)(address)
        self._floats = isinstance(path.sums.element, ir.FloatType)
        operand, sums = (np.float32, np.float32) if self._floats else (np.int8, np.int32)
        self._left = np.ones(_STREAM * path.operand.count, operand)
        self._right = np.ones(path.accumulators * path.operand.count, operand)
        self._sums = np.zeros(path.accumulators * path.sums.count, sums)

    def run(self, rounds: int) -> float:
        """Return the seconds that so many rounds take; raise if they did not count what they should have."""
        self._sums[:] = np.arange(self._sums.size)
        pointers = [array.ctypes.data for array in (self._left, self._right, self._sums)]
        start = time.perf_counter()
        self._function(rounds, *pointers)
        seconds = time.perf_counter() - start
        each = self.path.operand.count // self.path.sums.count
        if not np.array_equal(self._sums, np.arange(self._sums.size) + each * rounds):
            raise RuntimeError(f"{self.path.name}: the kernel did not count {rounds} rounds")
        return seconds

    def operations(self, rounds: int) -> int:
        """Return the additions and multiplications in so many rounds."""
        return rounds * self.path.accumulators * self.path.operations


def fastest(paths: tuple[Path, ...]) -> Path:
    """Return the first path that this processor has: they are listed from the fastest on."""
    return next(path for path in paths if path.runs_here())


def measure_peak(path: Path, repetitions: int) -> float:
    """Return operations per second on one thread: the best of several runs of some milliseconds."""
    kernel, rounds = Kernel(path), 1000
    while kernel.run(rounds) < 0.005 and rounds < 1 << 22:  # float32 counts to 2²⁴
        rounds *= 2
    return kernel.operations(rounds) / min(kernel.run(rounds) for _ in range(repetitions))
