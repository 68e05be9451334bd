"""The measurement of memory: what is measured, the steps that are found, and what the operating system says."""

import sys
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from tinytorch.acceleration import MemoryHierarchy, ReportedCache, measure_memory_hierarchy
from tinytorch.acceleration.memory import allocate, data_sizes, link_lines, read_bandwidth
from tinytorch.acceleration.plateaus import find_plateaus
from tinytorch.acceleration.system import parse_sysctl, parse_sysfs, reported_caches

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=30)
@given(lines=st.integers(1, 300), words=st.sampled_from([8, 16]), seed=seeds)
def test_links_lead_through_every_line_once(lines, words, seed):
    buffer = np.full(lines * words, 2**63, np.uint64)
    link_lines(buffer, lines, words, np.random.default_rng(seed))
    at, seen = 0, []
    for _ in range(lines):
        seen.append(at)
        at = int(buffer[at])
    assert at == 0
    assert sorted(seen) == list(range(0, lines * words, words))


def test_compiled_loops_follow_the_links_and_read_every_number():
    from tinytorch.acceleration import memory_loops

    buffer = np.arange(1000, dtype=np.uint64)
    assert memory_loops.read(buffer, 3) == 3 * buffer.sum()
    link_lines(buffer, 100, 8, np.random.default_rng(0))
    at = 0
    for steps in range(1, 5):
        at = int(buffer[at])
        assert memory_loops.chase(buffer, np.uint64(0), steps) == at


def test_sizes_are_whole_lines_evenly_spaced_on_a_logarithmic_scale():
    sizes = data_sizes(1 << 20, 4)
    assert (sizes[0], sizes[-1], len(sizes)) == (4096, 1 << 20, 33)
    assert not (sizes % 256).any()
    np.testing.assert_allclose(np.diff(np.log2(sizes)), 0.25, atol=0.05)


def test_data_begin_at_a_huge_page():
    buffer = allocate(3 << 20)
    assert buffer.nbytes == 3 << 20
    assert buffer.ctypes.data % (2 << 20) == 0


def test_a_measurement_has_positive_times_for_growing_sizes():
    result = measure_memory_hierarchy(quick=True, largest=1 << 18, progress=False)
    assert result.sizes[0] == 4096
    assert result.sizes[-1] == 1 << 18
    assert (np.diff(result.sizes) > 0).all()
    assert result.latency.shape == result.bandwidth.shape == result.sizes.shape
    assert (result.latency > 0).all()
    assert (result.bandwidth > 0).all()
    assert result.reported == reported_caches()
    assert len(result.plateaus) == len(result.steps) + 1


def test_latency_is_in_seconds_and_bandwidth_in_bytes_per_second_as_a_roofline_has_it():
    from tinytorch.acceleration import memory

    with (
        mock.patch.object(memory, "read_bandwidth", return_value=2e10),
        mock.patch.object(memory, "_seconds_per_link", return_value=3e-9),
    ):
        result = measure_memory_hierarchy(quick=True, largest=1 << 15, progress=False)
    np.testing.assert_allclose(result.latency, 3e-9)
    np.testing.assert_allclose(result.bandwidth, 2e10)
    (flat,) = result.plateaus
    assert (flat.latency, flat.bandwidth) == pytest.approx((3e-9, 2e10))


def test_bandwidth_counts_the_bytes_that_are_read():
    """A clock that says one second for every call: bytes per second are the bytes of one reading."""
    from tinytorch.acceleration import memory

    with mock.patch.object(memory.time, "perf_counter", side_effect=range(1000)):
        assert read_bandwidth(allocate(1 << 16), 1 << 15) == 1 << 15


@pytest.mark.parametrize("largest", [0, 4096])
def test_data_without_room_to_grow_are_refused(largest):
    with pytest.raises(ValueError, match="at least 8192 bytes"):
        measure_memory_hierarchy(largest=largest)


def test_an_interruption_closes_the_bar_and_goes_on_to_the_caller():
    from tinytorch.acceleration import memory

    bars = tqdm._instances
    before = len(bars)
    interrupted = mock.patch.object(memory, "read_bandwidth", side_effect=KeyboardInterrupt)
    with interrupted, pytest.raises(KeyboardInterrupt):
        measure_memory_hierarchy(quick=True, largest=1 << 14)
    assert len(bars) == before


def test_without_numba_the_measurement_says_what_to_install():
    with (
        mock.patch.dict(sys.modules, {"numba": None}),
        pytest.raises(ModuleNotFoundError, match=r"tinytorch-book\[numba\]"),
    ):
        measure_memory_hierarchy()


def staircase(sizes: np.ndarray, capacities: list[int], latencies: list[float], ramp: float) -> np.ndarray:
    """Latencies that climb from each to the next on a slope of `ramp` octaves around each capacity."""
    place = np.log2(sizes)
    height = np.full(len(sizes), np.log2(latencies[0]))
    for capacity, low, high in zip(capacities, latencies, latencies[1:], strict=False):
        share = np.clip((place - np.log2(capacity)) / max(ramp, 1e-6) + 0.5, 0, 1)
        height += share * np.log2(high / low)
    return 2**height


@settings(max_examples=100)
@given(
    seed=seeds,
    per_octave=st.sampled_from([2, 4]),
    ramp=st.floats(0, 1),
    octaves=st.lists(st.floats(3, 4.5), min_size=0, max_size=3),
    factors=st.lists(st.floats(2.5, 8), min_size=3, max_size=3),
)
def test_steps_are_found_where_the_staircase_has_them(seed, per_octave, ramp, octaves, factors):
    """To 3/4 of an octave, on slopes of up to one octave, with 3 % of noise and every fourth point disturbed."""
    rng = np.random.default_rng(seed)
    capacities = (2.0 ** (12 + np.cumsum(octaves))).tolist()
    sizes = data_sizes(1 << 29, per_octave)
    latencies = np.cumprod([1.5, *factors[: len(capacities)]]).tolist()
    noise = rng.uniform(1, 1.03, len(sizes))
    noise[rng.integers(0, 4) : -3 : 4] *= rng.uniform(1, 3)
    plateaus = find_plateaus(sizes, staircase(sizes, capacities, latencies, ramp) * noise, np.ones(len(sizes)))
    assert len(plateaus) == len(latencies)
    np.testing.assert_allclose([p.latency for p in plateaus], latencies, rtol=0.2)
    for plateau, capacity in zip(plateaus[:-1], capacities, strict=True):
        assert abs(np.log2(plateau.up_to / capacity)) < 0.75
    assert plateaus[-1].up_to is None


def test_a_gentle_slope_and_a_rise_at_the_end_are_no_steps():
    sizes = data_sizes(1 << 24, 4)
    gentle = np.linspace(1, 3, len(sizes))
    assert len(find_plateaus(sizes, gentle, gentle)) == 1
    rising = np.ones(len(sizes))
    rising[-1] = 5.0
    assert len(find_plateaus(sizes, rising, rising)) == 1


def test_each_reported_cache_stands_beside_the_step_that_is_near_it():
    sizes = data_sizes(1 << 26, 4)
    latency = staircase(sizes, [40 << 10, 6 << 20], [1.0, 4.0, 80.0], 0.5)
    reported = tuple(ReportedCache(n, s, 64) for n, s in (("L1", 32 << 10), ("L2", 512 << 10), ("L3", 8 << 20)))
    result = MemoryHierarchy(sizes, latency, np.ones(len(sizes)), reported)
    (_, first), (_, second), (_, third) = result.side_by_side
    assert first == pytest.approx(40 << 10, rel=0.1)
    assert second is None
    assert third == pytest.approx(6 << 20, rel=0.1)
    assert result.steps == (first, third)
    assert MemoryHierarchy(sizes, latency, np.ones(len(sizes)), None).side_by_side == ()


def cache_folder(root, index: int, **values: str) -> None:
    folder = root / f"index{index}"
    folder.mkdir()
    for name, value in values.items():
        (folder / name).write_text(value + "\n")


def test_linux_tells_of_data_caches(tmp_path):
    line = {"coherency_line_size": "64"}
    cache_folder(tmp_path, 2, type="Unified", level="2", size="1M", ways_of_associativity="0", **line)
    cache_folder(
        tmp_path, 0, type="Data", level="1", size="48K", ways_of_associativity="12", shared_cpu_list="0,8", **line
    )
    cache_folder(tmp_path, 1, type="Instruction", level="1", size="32K", **line)
    cache_folder(tmp_path, 3, type="Unified", level="3", size="32768K", shared_cpu_list="0-7,16-23", **line)
    cache_folder(tmp_path, 4, type="Unified", level="4", **line)  # some machines leave the size out
    assert parse_sysfs(tmp_path) == (
        ReportedCache("L1", 48 << 10, 64, ways=12, shared_by=2),
        ReportedCache("L2", 1 << 20, 64),
        ReportedCache("L3", 32 << 20, 64, shared_by=16),
    )


def test_linux_without_the_folder_tells_nothing(tmp_path):
    assert parse_sysfs(tmp_path) is None
    assert parse_sysfs(tmp_path / "missing") is None


def test_macos_tells_of_its_fast_cores():
    text = "\n".join(
        [
            "hw.cachelinesize: 128",
            "hw.l1dcachesize: 65536",
            "hw.perflevel0.l1dcachesize: 131072",
            "hw.l2cachesize: 4194304",
        ]
    )
    assert parse_sysctl(text) == (ReportedCache("L1", 131072, 128), ReportedCache("L2", 4 << 20, 128))
    assert parse_sysctl("") is None
