"""Each path emits the instruction that it is named for, on processors that are not at hand too, and adds up right."""

import ctypes
import re

import numpy as np
import pytest

llvm = pytest.importorskip("llvmlite.binding")

from llvmlite import ir  # noqa: E402

from tinytorch.kernels.compiled.instructions import PATHS, call, paths_here  # noqa: E402

WINDOWS, VECTORS = 6, 2
I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER = ir.PointerType()
BY_NAME = {path.name: path for path in PATHS}


def tile_kernel(path) -> ir.Module:
    """Emit `void kernel(int64 steps, codes, weights, sums)`: the inner loop of `int8_conv`, for a tile of 6 x 2.

    In each step the tile's windows, 64 bytes apart, give four codes each, and each channel four weights.
    """
    module = ir.Module()
    kind = ir.FunctionType(ir.VoidType(), [I64, POINTER, POINTER, POINTER])
    function = ir.Function(module, kind, "kernel")
    steps, codes, weights, sums = function.args
    entry, loop, end = (function.append_basic_block(name) for name in ("entry", "loop", "end"))
    total, four = ir.VectorType(I32, path.lanes), ir.VectorType(I8, 4 * path.lanes)
    builder = ir.IRBuilder(entry)

    def at(base, offset, scale=1):
        return builder.gep(base, [builder.mul(offset, I64(scale))], source_etype=I8)

    starts = [builder.load(at(sums, I64(4 * path.lanes * n)), align=4, typ=total) for n in range(WINDOWS * VECTORS)]
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(I64)
    step.add_incoming(I64(0), entry)
    tile = [builder.phi(total) for _ in starts]
    row = at(weights, step, 4 * path.lanes * VECTORS)
    right = [builder.load(at(row, I64(4 * path.lanes * v)), align=1, typ=four) for v in range(VECTORS)]
    results = []
    for w in range(WINDOWS):
        word = builder.load(at(at(codes, step, 4), I64(64 * w)), align=1, typ=I32)
        nothing = ir.Constant(total, ir.Undefined)
        one = builder.insert_element(nothing, word, I32(0))
        left = builder.bitcast(builder.shuffle_vector(one, nothing, ir.Constant(total, [0] * path.lanes)), four)
        results += [path.step(builder, tile[w * VECTORS + v], left, right[v]) for v in range(VECTORS)]
    for phi, start, result in zip(tile, starts, results, strict=True):
        phi.add_incoming(start, entry)
        phi.add_incoming(result, loop)
    following = builder.add(step, I64(1))
    step.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, end)
    builder.position_at_end(end)
    for n, result in enumerate(results):
        builder.store(result, at(sums, I64(4 * path.lanes * n)), align=4)
    builder.ret_void()
    return module


def assembly(path, triple, features):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = tile_kernel(path)
    module.triple = triple
    machine = llvm.Target.from_triple(triple).create_target_machine(features=features, opt=3)
    return machine.emit_assembly(llvm.parse_assembly(str(module)))


TILE = WINDOWS * VECTORS


@pytest.mark.parametrize(
    ("path", "triple", "features", "instruction", "count"),
    [
        ("avx512-vnni", "x86_64-unknown-linux-gnu", "+avx512vnni", r"vpdpbusd\s.*%zmm", TILE),
        ("avx-vnni", "x86_64-unknown-linux-gnu", "+avxvnni", r"vpdpbusd\s.*%ymm", TILE),
        ("avx-vnni", "x86_64-unknown-linux-gnu", "+avx512vnni,+avx512vl", r"vpdpbusd\s.*%ymm", TILE),
        ("avx2", "x86_64-unknown-linux-gnu", "+avx2", r"vpmaddwd\s.*%ymm", 2 * TILE),
        ("arm-usdot", "aarch64-unknown-linux-gnu", "+i8mm", r"\busdot\s", TILE),
        ("arm-usdot", "arm64-apple-macosx", "+i8mm", r"\busdot(\.4s)?\s", TILE),
        ("arm-sdot", "aarch64-unknown-linux-gnu", "+dotprod", r"\bsdot\s", TILE + VECTORS),
        ("arm-sdot", "arm64-apple-macosx", "+dotprod", r"\bsdot(\.4s)?\s", TILE + VECTORS),
        ("generic", "x86_64-unknown-linux-gnu", "+sse2", r"pmaddwd\s", 4 * TILE),
        ("generic", "aarch64-unknown-linux-gnu", "+neon", r"\bml[as]\s", 4 * TILE),
    ],
)  # fmt: skip
def test_a_tile_is_so_many_of_the_instruction_that_its_path_is_named_for(path, triple, features, instruction, count):
    """On Arm without usdot, two sdots more for the weights alone turn unsigned codes into signed ones."""
    found = assembly(BY_NAME[path], triple, features)
    assert len(re.findall(instruction, found)) == count


@pytest.mark.parametrize(("path", "features"), [("arm-usdot", "+i8mm"), ("arm-sdot", "+dotprod")])
def test_a_tile_fits_into_the_registers_of_an_arm(path, features):
    lines = assembly(BY_NAME[path], "aarch64-unknown-linux-gnu", features).splitlines()
    dots = [n for n, line in enumerate(lines) if re.search(r"\tu?sdot\t", line)]
    begin = max(n for n in range(dots[0]) if re.match(r"\.LBB0_\d+:", lines[n]))
    loop = lines[begin : dots[-1] + 1]
    assert sum("ld1r" in line for line in loop) == WINDOWS  # each window's codes, repeated as they are loaded
    assert [line for line in loop if "[sp" in line] == []


def emulated(module: ir.Module, path) -> str:
    """Define Arm's instructions in plain arithmetic, from their reference, so that any processor can run them."""
    text = str(module)
    for name, signed_left in (("sdot", True), ("usdot", False)):
        intrinsic = f"llvm.aarch64.neon.{name}.v4i32.v16i8"
        if intrinsic not in text:
            continue
        total, four = ir.VectorType(I32, 4), ir.VectorType(I8, 16)
        own = ir.Module()
        function = ir.Function(own, ir.FunctionType(total, [total, four, four]), f"emulated_{name}")
        builder = ir.IRBuilder(function.append_basic_block())
        out, left, right = function.args
        for lane in range(4):
            number = builder.extract_element(out, I32(lane))
            for byte in range(4):
                a = builder.extract_element(left, I32(4 * lane + byte))
                b = builder.extract_element(right, I32(4 * lane + byte))
                a = builder.sext(a, I32) if signed_left else builder.zext(a, I32)
                number = builder.add(number, builder.mul(a, builder.sext(b, I32)))
            out = builder.insert_element(out, number, I32(lane))
        builder.ret(out)
        text = "\n".join(line for line in text.splitlines() if not ("declare" in line and intrinsic in line))
        body = str(own)
        text = text.replace(intrinsic, f"emulated_{name}") + body[body.index("define") :]
    return text


def run(text, steps, codes, weights, sums):
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    host = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=host, opt=3)
    module = llvm.parse_assembly(text)
    module.triple = llvm.get_process_triple()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    address = engine.get_function_address("kernel")
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * 3)(address)
    function(steps, *(array.ctypes.data for array in (codes, weights, sums)))


RUNNABLE = [path for path in PATHS if path in paths_here() or path.name.startswith("arm")]


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.name)
def test_every_path_adds_the_products_up_exactly(path):
    """Arm's too: their two instructions stand in for themselves as the reference manual defines them."""
    rng, steps = np.random.default_rng(0), 9
    codes = rng.integers(0, 256, (WINDOWS, 64), np.uint8)
    weights = rng.integers(-127, 128, (steps, VECTORS, path.lanes, 4), np.int8)
    codes[0], weights[:, 0] = 255, 127  # the largest sums of all
    codes[1], weights[:, 1, 0] = 255, -127
    sums = rng.integers(-9999, 9999, (WINDOWS, VECTORS, path.lanes)).astype(np.int32)
    products = np.einsum(
        "wsb,svlb->wvl", codes[:, : 4 * steps].reshape(WINDOWS, steps, 4).astype(int), weights.astype(int)
    )
    expected = sums + products
    run(emulated(tile_kernel(path), path), steps, codes, weights, sums)
    np.testing.assert_array_equal(sums, expected)


def test_the_list_of_paths_ends_with_one_that_runs_everywhere():
    assert paths_here()
    assert PATHS[-1].needs == (frozenset(),)
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    first = call(builder, "g", I32, I32(1))
    assert call(builder, "g", I32, I32(2)).callee is first.callee  # declared once
