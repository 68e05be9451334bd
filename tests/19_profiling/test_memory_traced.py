"""Traced peaks: exact, kept by every block around, and left to others as they were."""

import gc
import mmap
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch import Tensor, nn
from tinytorch.profiling.memory.profiler import MemoryProfiler
from tinytorch.profiling.memory.traced import Tracing

MIB = 1 << 20
PAGE = 4096
OBJECTS = PAGE // 2  # bytes that Python's own objects take in these tests, at most


pytestmark = pytest.mark.usefixtures("on_numpy")


def peak_of(allocate) -> int:
    with MemoryProfiler() as memory:
        allocate()
    return memory.traced_peak


def test_an_array_raises_the_peak_by_its_bytes_and_by_less_than_the_object_that_python_makes_of_it():
    sizes = (1, 999, 100_003, 7 * MIB + 1)
    peaks = [peak_of(lambda n=n: np.empty(n, np.uint8)) for n in sizes]
    assert len({peak - n for peak, n in zip(peaks, sizes, strict=True)}) == 1
    assert 0 <= peaks[0] - 1 <= 256


def test_what_is_freed_again_is_in_the_peak_and_what_stays_is_kept():
    held = []
    with MemoryProfiler() as memory:
        np.empty(3 * MIB, np.uint8)
        held.append(np.empty(MIB, np.uint8))
    assert 0 <= memory.traced_peak - 3 * MIB < OBJECTS
    assert abs(memory.traced_kept - MIB) < OBJECTS
    with memory:
        pass
    assert memory.traced_peak < OBJECTS


def test_a_block_that_frees_what_was_traced_before_keeps_less_than_nothing():
    with MemoryProfiler():
        held = [np.empty(MIB, np.uint8)]
        with MemoryProfiler() as inner:
            held.clear()
    assert 0 <= inner.traced_peak < OBJECTS
    assert abs(inner.traced_kept + MIB) < OBJECTS


exchanges = st.tuples(st.integers(0, 3), st.integers(0, 300))  # which array, and the pages of the new one
blocks = st.recursive(
    st.lists(exchanges, max_size=4), lambda inner: st.lists(exchanges | inner, max_size=4), max_leaves=12
)


def simulated(tree: list, live: list[int], around: list[list[int]]) -> list[list[int]]:
    """Return [start, peak, end] of each block within, in pages, in the order in which they begin."""
    found = []
    for action in tree:
        if isinstance(action, tuple):
            live[action[0]] = action[1]
            for block in around:
                block[1] = max(block[1], sum(live))
        else:
            own = [sum(live), sum(live), 0]
            found += [own, *simulated(action, live, [*around, own])]
            own[2] = sum(live)
    return found


def run(tree: list, arrays: list[np.ndarray], profilers: list[MemoryProfiler]) -> None:
    for action in tree:
        if isinstance(action, tuple):
            which, pages = action
            arrays[which] = None  # so that the old one goes before the new one comes
            arrays[which] = np.empty(PAGE * pages, np.uint8)
        else:
            with profilers.pop(0):
                run(action, arrays, profilers)


@given(tree=blocks)
def test_every_block_in_a_tree_of_blocks_has_the_peak_of_its_own(tree):
    with MemoryProfiler():
        arrays = [np.empty(PAGE, np.uint8) for _ in range(4)]
        expected = simulated([tree], [1] * 4, [])
        profilers = [MemoryProfiler() for _ in expected]
        run([tree], arrays, profilers.copy())
    for profiler, (start, peak, end) in zip(profilers, expected, strict=True):
        assert round(profiler.traced_peak / PAGE) == peak - start  # what Python's objects take is no half of a page
        assert round(profiler.traced_kept / PAGE) == end - start


def test_a_block_keeps_its_peak_when_layers_are_measured_within_it():
    model = nn.Sequential(nn.Linear(10, 10), nn.ReLU())
    x = Tensor(np.zeros((4, 10), np.float32))
    with MemoryProfiler() as outer:
        np.empty(5 * MIB, np.uint8)
        with MemoryProfiler(model) as inner:
            np.empty(3 * MIB, np.uint8)
            model(x)
        model(x)
    assert abs(outer.traced_peak - 5 * MIB) < 64 * 1024
    assert abs(inner.traced_peak - 3 * MIB) < 64 * 1024


def test_what_the_profiler_keeps_for_itself_is_left_out():
    layer, x = nn.ReLU(), Tensor(np.zeros(1, np.float32))
    with MemoryProfiler(layer) as memory:
        for _ in range(300):
            layer(x)
    assert len(memory.timeline) == 300
    assert abs(memory.timeline[-1].traced) < 300 * 128  # a moment alone is five times that


def test_garbage_of_the_program_is_not_collected_on_the_account_of_an_instrument():
    tracing = Tracing()
    for collects in (True, False):
        (gc.enable if collects else gc.disable)()
        try:
            tracing.pause()
            tracing.pause()
            assert not gc.isenabled()
            tracing.resume()
            assert not gc.isenabled()
            tracing.resume()
            assert gc.isenabled() is collects
        finally:
            gc.enable()


def test_tracing_is_over_when_the_last_block_ends_and_goes_on_if_it_was_on_before():
    with MemoryProfiler(), MemoryProfiler():
        assert tracemalloc.is_tracing()
    assert not tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        with MemoryProfiler():
            pass
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("when", ["before", "within", "after"])
def test_who_traced_before_gets_back_the_peak(when):
    tracemalloc.start()
    try:
        for moment in ("before", "within", "after"):
            if moment == "within":
                with MemoryProfiler():
                    np.empty(9 * MIB if moment == when else MIB, np.uint8)
            else:
                np.empty(9 * MIB if moment == when else MIB, np.uint8)
        now, peak = tracemalloc.get_traced_memory()
        assert abs(peak - 9 * MIB) < 64 * 1024
        assert now < 64 * 1024
    finally:
        tracemalloc.stop()


def test_memory_that_numpy_takes_elsewhere_is_refused():
    tracing = Tracing()
    tracemalloc.start()
    try:
        tracing.check()
        with pytest.raises(RuntimeError, match="allocates where it cannot be seen"):
            tracing.check(lambda nbytes: np.frombuffer(mmap.mmap(-1, nbytes), np.uint8))
    finally:
        tracemalloc.stop()


def test_a_check_that_fails_leaves_everything_as_it_was(monkeypatch):
    def fails(self):
        raise RuntimeError("not seen")

    before, memory = nn.Module.__call__, MemoryProfiler()
    with monkeypatch.context() as patched:
        patched.setattr(Tracing, "check", fails)
        with pytest.raises(RuntimeError, match="not seen"), memory:
            pass
    assert not tracemalloc.is_tracing()
    assert nn.Module.__call__ is before
    with memory:
        np.empty(MIB, np.uint8)
    assert memory.traced_peak >= MIB


def test_tracing_that_is_stopped_within_a_block_is_an_error_and_does_not_hide_another():
    with pytest.raises(RuntimeError, match="stopped within the block"), MemoryProfiler():
        tracemalloc.stop()
    with pytest.raises(KeyError), MemoryProfiler():
        {}[tracemalloc.stop()]
    assert peak_of(lambda: np.empty(MIB, np.uint8)) >= MIB


def test_other_threads_are_traced():
    with MemoryProfiler() as memory:
        thread = threading.Thread(target=lambda: np.empty(4 * MIB, np.uint8))
        thread.start()
        thread.join()
    assert abs(memory.traced_peak - 4 * MIB) < 64 * 1024
    assert memory.peak["total"] == 0


def test_profilers_of_two_threads_keep_their_own_peaks():
    inside, outside = threading.Event(), threading.Event()
    other = MemoryProfiler()

    def work():
        with other:
            np.empty(2 * MIB, np.uint8)
            inside.set()
            outside.wait(60)

    thread = threading.Thread(target=work)
    with MemoryProfiler() as memory:
        thread.start()
        assert inside.wait(60)
    np.empty(6 * MIB, np.uint8)
    outside.set()
    thread.join()
    assert abs(memory.traced_peak - 2 * MIB) < 64 * 1024
    assert abs(other.traced_peak - 6 * MIB) < 64 * 1024
    assert not tracemalloc.is_tracing()
