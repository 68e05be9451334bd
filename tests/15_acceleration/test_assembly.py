"""Machine code is read right: on this processor, and as LLVM writes it for others."""

import io

import numpy as np
import pytest

numba = pytest.importorskip("numba")
llvm = pytest.importorskip("llvmlite.binding")

from tinytorch.acceleration import peak  # noqa: E402
from tinytorch.acceleration.assembly import InnerLoop, hottest_loop, inner_loops  # noqa: E402
from tinytorch.kernels.compiled import matmul, simd  # noqa: E402

PATHS = {path.name.partition(":")[0]: path for path in peak.FLOAT32}


def counts(loop: InnerLoop) -> dict[str, int]:
    return {name: value for name, value in vars(loop).items() if name != "lines"}


@pytest.mark.parametrize(
    ("path", "triple", "features", "lanes", "fmas"),
    [
        ("AVX-512", "x86_64-unknown-linux-gnu", "+avx512f", 16, 24),
        ("AVX and FMA", "x86_64-pc-windows-msvc-elf", "+avx,+fma", 8, 12),
        ("Neon", "aarch64-unknown-linux-gnu", "+neon", 4, 24),
        ("Neon", "arm64-apple-macosx", "+neon", 4, 24),
    ],
)
def test_the_kernel_that_measures_the_peak_is_all_multiplications_on_every_processor(
    path, triple, features, lanes, fmas
):
    """It loads one vector for all of them: `tinytorch.acceleration.peak` is written so."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = peak.kernel_module(PATHS[path])
    module.triple = triple
    machine = llvm.Target.from_triple(triple).create_target_machine(features=features, opt=3)
    (loop,) = inner_loops(machine.emit_assembly(llvm.parse_assembly(str(module))))
    assert counts(loop) == {
        "lanes": lanes,
        "products": fmas,
        "fused": fmas,
        "loads": 1,
        "stores": 0,
        "spills": 0,
    }


X86 = """
.LBB0_1:                                # =>This Loop Header: Depth=1
	vmovups	(%rdi), %zmm7
	.p2align	4
.LBB0_2:                                #   Parent Loop BB0_1 Depth=1
	vmovups	64(%rsi,%rdx,4), %zmm0          # zmm0 = mem[0,1,2]
	vbroadcastss	(%rdi), %zmm1
	vfmadd231ps	(%rax){1to16}, %zmm0, %zmm2
	vfmadd213ps	%zmm3, %zmm1, %zmm0 {%k1} {z}
	vmovups	%zmm4, 128(%rsp)                # 64-byte Spill
	vaddps	192(%rsp), %zmm4, %zmm4         # 64-byte Folded Reload
	vmulss	(%rdi), %xmm5, %xmm5
	vmovups	%zmm0, (%rcx)
	leaq	64(%rsi), %rsi
	movq	8(%rsp), %r8
	cmpq	%rax, %rdx
	jne	.LBB0_2
	decq	%rbx
	jne	.LBB0_1
	jmp	.LBB0_9
.LBB0_9:
	retq
"""

ARM = """
.LBB0_1:                                // =>This Inner Loop Header
	ldp	q0, q1, [x9, #-16]
	ldr	s2, [x10, x11, lsl #2]
	ld1r	{ v3.4s }, [x8]
	fmla	v4.4s, v0.4s, v2.s[0]
	fmul	v5.4s, v1.4s, v3.4s
	fmadd	s6, s2, s2, s6
	stp	q4, q5, [sp, #32]               // 32-byte Folded Spill
	str	q4, [x0], #16
	ldr	x12, [sp, #8]
	cbnz	x12, .LBB0_1
	ret
"""


def test_x86_operands_in_memory_are_loads_and_what_goes_to_the_stack_is_a_spill():
    (loop,) = inner_loops(X86)
    assert counts(loop) == {"lanes": 16, "products": 2, "fused": 2, "loads": 5, "stores": 2, "spills": 2}
    assert loop.lines[0] == ".LBB0_2:"
    assert loop.lines[-1].split() == ["jne", ".LBB0_2"]


def test_arm_instructions_that_move_two_registers_count_twice():
    (loop,) = inner_loops(ARM)
    assert counts(loop) == {"lanes": 4, "products": 2, "fused": 1, "loads": 4, "stores": 3, "spills": 2}
    assert loop.lines[1] == "    ldp  q0, q1, [x9, #-16]"


@pytest.fixture(scope="module")
def numbers():
    return np.ones(4096, np.float32)


@pytest.mark.skipif(simd.LANES == 4 and simd.REGISTERS == 16, reason="this processor has no fused multiply-add")
def test_the_register_tile_loads_what_its_shape_says_and_spills_nothing(numbers):
    """ROWS numbers of a and VECTORS vectors of b serve ROWS * VECTORS multiply-adds; LLVM may unroll the loop."""
    vectors, rows = matmul.VECTORS, matmul.ROWS
    loop = hottest_loop(matmul._product, numbers, 0, 64, 1, numbers, 0, 64, 16)
    assert loop.lanes == simd.LANES
    assert loop.fused == loop.products
    assert loop.products % (rows * vectors) == 0
    assert loop.loads <= (rows + vectors) / (rows * vectors) * loop.products
    assert (loop.stores, loop.spills) == (0, 0)


def test_the_plain_loop_touches_memory_three_times_for_each_product(numbers):
    """It loads one number of b and one of the result, and stores the result."""
    square = numbers.reshape(64, 64)
    loop = hottest_loop(matmul.loops, square, square, square)
    assert (loop.loads, loop.stores) == (2 * loop.products, loop.products)


def test_what_numba_did_not_compile_is_refused():
    with pytest.raises(TypeError, match=r"len.* is not compiled by Numba"):
        hottest_loop(len, [1.0])


def test_a_function_without_such_a_loop_is_refused():
    @numba.njit
    def increment(x):
        return x + 1

    with pytest.raises(ValueError, match="increment has no loop"):
        hottest_loop(increment, 1)


def test_no_loop_is_found_where_there_is_none():
    assert list(inner_loops("")) == []
    assert list(inner_loops("main:\n\tjmp\t.LBB0_1\n.LBB0_1:\n\tretq\n")) == []


def test_looking_does_not_say_that_kernels_are_compiled(numbers, monkeypatch):
    """The line of `jit` would be wrong here, and in a notebook it would stand in the cell as an error."""
    said = io.StringIO()
    monkeypatch.setattr("sys.__stderr__", said)
    hottest_loop(matmul.loops, *[numbers.reshape(64, 64)] * 3)
    assert said.getvalue() == ""
