"""The roofline's arithmetic, and the kernels that measure its roofs."""

import re
import sys
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.acceleration import AboveRoofError, ReportedCache, Roofline, roofline

peak = pytest.importorskip("tinytorch.acceleration.peak", exc_type=ImportError)
llvm = pytest.importorskip("llvmlite.binding")

HAND = Roofline(100e9, 20e9, peak_int8=400e9, cache_bandwidth={"L1": 200e9, "L2": 100e9})
PATHS = {path.name: path for path in (*peak.FLOAT32, *peak.INT8)}
positive = st.floats(1e-6, 1e6)


@given(intensity=positive, level=st.sampled_from(["DRAM", "L1", "L2"]), dtype=st.sampled_from(["float32", "int8"]))
def test_the_roof_is_the_lower_of_arithmetic_and_bandwidth(intensity, level, dtype):
    flat = {"float32": 100e9, "int8": 400e9}[dtype]
    slanted = intensity * {"DRAM": 20e9, "L1": 200e9, "L2": 100e9}[level]
    assert HAND.bound(intensity, level=level, dtype=dtype) == min(flat, slanted)
    ridge = HAND.ridge(level=level, dtype=dtype)
    assert HAND.bound(ridge, level=level, dtype=dtype) == pytest.approx(flat)
    assert HAND.bound(ridge / 2, level=level, dtype=dtype) == pytest.approx(flat / 2)


def test_the_roof_of_many_intensities_is_an_array():
    np.testing.assert_array_equal(HAND.bound(np.array([1.0, 5.0, 50.0])), [20e9, 100e9, 100e9])


@given(flops=positive, size=positive, share=st.floats(0.01, 1.049))
def test_a_point_has_its_share_of_the_roof(flops, size, share):
    roof = HAND.bound(flops / size)
    point = HAND.place("kernel", flops, size, flops / (share * roof))
    assert point.intensity == flops / size
    assert point.achieved == pytest.approx(share * roof)
    assert (point.roof, point.share) == (roof, pytest.approx(share))
    assert point.limit == ("float32" if flops / size >= 5.0 else "DRAM")


def test_a_point_above_the_roof_of_memory_is_asked_where_its_bytes_come_from():
    """10⁹ operations on 4 x 10⁹ bytes cannot take less than 0.2 s at 20 GB/s."""
    with pytest.raises(AboveRoofError, match=r'add .* 2\.00 times .* reading DRAM.*level="L1"'):
        HAND.place("add", 1e9, 4e9, 0.1)
    assert HAND.place("add", 1e9, 4e9, 0.1, level="L2").share == pytest.approx(0.4)


def test_a_point_above_the_peak_is_asked_for_its_counts():
    with pytest.raises(AboveRoofError, match=r"matmul .* 1\.06 times .* float32 arithmetic.*one thread"):
        HAND.place("matmul", 106e9, 1e9, 1.0)
    assert HAND.place("matmul", 106e9, 1e9, 1.0, dtype="int8").share == pytest.approx(0.265)


def test_five_percent_above_the_roof_is_within_what_measurements_differ_by():
    assert HAND.place("matmul", 104.9e9, 1e9, 1.0).share == pytest.approx(1.049)


@pytest.mark.parametrize("wrong", ["flops", "bytes", "seconds"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_points_need_positive_numbers(wrong, value):
    with pytest.raises(ValueError, match=wrong):
        HAND.place("kernel", **({"flops": 1.0, "bytes": 1.0, "seconds": 1.0} | {wrong: value}))


@pytest.mark.parametrize(
    "roofs", [{"peak_flops": 0.0}, {"bandwidth": -1.0}, {"peak_int8": np.nan}, {"cache_bandwidth": {"L1": 0.0}}]
)
def test_roofs_are_positive_numbers(roofs):
    with pytest.raises(ValueError, match=r"a roof is a positive number"):
        Roofline(**({"peak_flops": 1.0, "bandwidth": 1.0} | roofs))


def test_roofs_that_are_not_known_are_named():
    with pytest.raises(ValueError, match=r"no level 'L3': it has DRAM, L1, L2"):
        HAND.bound(1.0, level="L3")
    with pytest.raises(ValueError, match=r"no peak of 'int8': it has float32"):
        Roofline(1.0, 1.0).ridge(dtype="int8")


def test_a_measurement_has_a_roof_for_everything_and_names_the_instructions():
    working_sets = {"L1": [1 << 13, 1 << 14], "DRAM": [1 << 20]}
    with mock.patch.object(roofline, "_working_sets", return_value=working_sets):
        measured = Roofline.measure(quick=True, progress=False)
    assert measured.cache_bandwidth.keys() == {"L1"}
    assert measured.peak_int8 is not None
    assert measured.paths == {"float32": peak.fastest(peak.FLOAT32).name, "int8": peak.fastest(peak.INT8).name}


def test_working_sets_fit_their_level_and_not_the_one_before():
    reported = [ReportedCache(n, s << 10, 64) for n, s in (("L1", 48), ("L2", 256), ("L3", 1 << 15))]
    with mock.patch.object(roofline, "reported_caches", return_value=reported):
        sets = roofline._working_sets()
    assert sets == {"L1": [12 << 10, 24 << 10], "L2": [128 << 10], "L3": [8 << 20, 16 << 20], "DRAM": [128 << 20]}


def test_where_the_system_tells_no_caches_the_measured_steps_take_their_place():
    measured = SimpleNamespace(steps=(40_000, 1_000_000))
    with (
        mock.patch.object(roofline, "reported_caches", return_value=None),
        mock.patch.object(roofline, "measure_memory_hierarchy", return_value=measured),
    ):
        assert roofline._working_sets() == {
            "L1": [10_000, 20_000],
            "L2": [250_000, 500_000],
            "DRAM": [64 << 20],
        }


def test_without_numba_the_measurement_says_what_to_install():
    with (
        mock.patch.dict(sys.modules, {"numba": None}),
        pytest.raises(ModuleNotFoundError, match=r"tinytorch-book\[numba\]"),
    ):
        Roofline.measure()


@pytest.mark.parametrize("path", [pytest.param(path, id=name) for name, path in PATHS.items()])
def test_every_kernel_counts_its_rounds(path):
    """`run` raises if one sum is wrong."""
    if not path.runs_here():
        pytest.skip("this processor lacks " + " or ".join(" and ".join(need) for need in path.needs))
    kernel = peak.Kernel(path)
    for rounds in (1, 2, 1000):
        assert kernel.run(rounds) > 0
    assert kernel.operations(3) == 3 * path.accumulators * 2 * path.operand.count


def test_a_kernel_that_skips_work_is_caught():
    lazy = peak.Path("lazy", (frozenset(),), PATHS["4 float32"].operand, PATHS["4 float32"].sums, 2, lambda b, t, *_: t)
    with pytest.raises(RuntimeError, match="lazy: the kernel did not count 7 rounds"):
        peak.Kernel(lazy).run(7)


@pytest.mark.parametrize(
    ("name", "triple", "features", "instruction"),
    [
        ("AVX-512: 16 float32", "x86_64", "+avx512f", r"vfmadd231ps\t.*%zmm"),
        ("AVX and FMA: 8 float32", "x86_64", "+avx,+fma", r"vfmadd231ps\t.*%ymm"),
        ("Neon: 4 float32", "aarch64", "+neon", r"fmla\tv"),
        ("AVX-512 VNNI: vpdpbusd, 64 int8", "x86_64", "+avx512vnni,+avx512bw", r"vpdpbusd\t.*%zmm"),
        ("AVX-VNNI: vpdpbusd, 32 int8", "x86_64", "+avx2,+avxvnni", r"vpdpbusd\t.*%ymm"),
        ("AVX2: vpmaddubsw, 32 int8", "x86_64", "+avx2", r"vpmaddubsw\t.*%ymm"),
        ("Arm: sdot, 16 int8", "aarch64", "+dotprod", r"sdot\tv"),
    ],
)
def test_kernels_of_other_processors_are_the_instructions_they_name(name, triple, features, instruction):
    """One in the loop for each accumulator, and no accumulator in memory."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(features=features, opt=3)
    assembly = machine.emit_assembly(llvm.parse_assembly(str(peak.kernel_module(PATHS[name]))))
    loop = re.search(r"LBB0_1:(.*?)LBB0_1", assembly, re.DOTALL)[1]
    assert len(re.findall(instruction, loop)) == PATHS[name].accumulators
    assert not re.search(r"%rsp|\bsp\b", loop)
