"""Rows of a profile on the roofline: hand-made events on a hand-made machine, so that every number can be checked."""

import math
from unittest import mock

import numpy as np
import pytest

import tinytorch
from tinytorch import Tensor, nn, optim
from tinytorch.acceleration import Roofline
from tinytorch.ops.attention import SelfAttention
from tinytorch.ops.elementwise import Add
from tinytorch.ops.linear import MatMul
from tinytorch.profiling.bottlenecks import find as bottlenecks
from tinytorch.profiling.bottlenecks.advice import CACHE, LARGER_BATCH, LARGER_CALLS
from tinytorch.profiling.bottlenecks.find import find_bottlenecks
from tinytorch.profiling.dispatch import record_function
from tinytorch.profiling.event import Event
from tinytorch.profiling.flops.count import count
from tinytorch.profiling.operation import Array, Operation
from tinytorch.profiling.profiler.context import ProfilerContext

HAND = Roofline(peak_flops=100e9, bandwidth=20e9, cache_bandwidth={"L1": 200e9, "L2": 100e9})
CACHES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 1 << 25}
OVERHEAD = 1e-6


@pytest.fixture(autouse=True)
def hand_made_caches(monkeypatch):
    monkeypatch.setattr(bottlenecks, "_cache_sizes", lambda: CACHES)


def array(*shape: int, dtype: type = np.float32) -> Array:
    return Array(shape, np.dtype(dtype))


def matmul(n: int, k: int, m: int, dtype: type = np.float32) -> Operation:
    return Operation("forward", MatMul, (array(n, k, dtype=dtype), array(k, m, dtype=dtype)), (), array(n, m))


def add(*shape: int) -> Operation:
    return Operation("forward", Add, (array(*shape), array(*shape)), (), array(*shape))


def event(operation: Operation, seconds: float) -> Event:
    return Event(operation.kind, operation.function.__name__, "", 0, round(1e9 * seconds), operation=operation)


def found(*events: Event, overhead: float = OVERHEAD) -> bottlenecks.Bottlenecks:
    return find_bottlenecks(events, HAND, overhead)


def test_a_product_takes_its_operations_bytes_level_and_bound_from_its_shapes():
    (row,) = found(event(matmul(512, 512, 512), 5e-3))
    assert (row.name, row.kind, row.shapes, row.calls) == ("MatMul", "forward", "512x512, 512x512", 1)
    assert (row.flops, row.bytes, row.level) == (2 * 512**3, 3 * 4 * 512**2, "DRAM")
    assert row.bound == pytest.approx(2 * 512**3 / 100e9)
    assert row.intensity == pytest.approx(512 / 6)
    assert row.efficiency == pytest.approx(row.bound / 5e-3)
    assert row.savings == pytest.approx(5e-3 - row.bound)


def test_every_call_has_its_price():
    (row,) = found(*[event(add(1), 1.25e-6)] * 10)
    assert (row.verdict, row.reason) == ("overhead-bound", "80 % of the time is the price of its calls")


@pytest.mark.parametrize(("elements", "level"), [(2730, "L1"), (2731, "L2"), (87_381, "L2"), (87_382, "DRAM")])
def test_bytes_come_from_the_nearest_level_that_holds_them_and_has_a_roof(elements, level):
    """12 bytes an element; L3 has no roof here."""
    (row,) = found(event(add(elements), 1e-3))
    assert row.level == level
    assert row.bound == pytest.approx(12 * elements / {"L1": 200e9, "L2": 100e9, "DRAM": 20e9}[level])


def test_with_a_roof_for_memory_alone_no_cache_is_asked_for(monkeypatch):
    """Where the system does not tell the caches, they would be measured."""
    monkeypatch.setattr(bottlenecks, "_cache_sizes", None)
    (row,) = find_bottlenecks([event(add(8), 1e-3)], Roofline(100e9, 20e9), OVERHEAD)
    assert row.level == "DRAM"


def test_arithmetic_on_float64_has_half_the_peak():
    (single,), (double,) = (found(event(matmul(512, 512, 512, dtype), 9e-3)) for dtype in (np.float32, np.float64))
    assert double.bound == pytest.approx(2 * single.bound)


def test_what_a_causal_mask_hides_needs_no_time():
    operation = Operation("forward", SelfAttention, (array(1, 64, 96), 2), (), array(1, 64, 32))
    (row,) = found(event(operation, 1e-3))
    cost = count(operation)
    assert 0 < row.flops == cost.flops - cost.masked < cost.flops


def test_growing_sequences_are_told_to_be_cached_unless_they_are_trained_on():
    def attention(length: int) -> Event:
        return event(Operation("forward", SelfAttention, (array(1, length, 96), 2), (), array(1, length, 32)), 1e-3)

    growing = [attention(length) for length in (256, 257, 258)]
    derivative = event(Operation("backward", Add, (array(8), array(8)), (), array(8), (True, True), (None, None)), 1e-6)
    assert all(row.advice[0] == CACHE for row in found(*growing, overhead=0.0))
    assert not any(CACHE in row.advice for row in found(*growing, derivative, overhead=0.0))


def test_equal_work_is_one_row_and_other_shapes_are_another():
    rows = found(*[event(add(1000), 1e-3)] * 3, event(add(2000), 1e-3))
    assert sorted((row.shapes, row.calls) for row in rows) == [("1000, 1000", 3), ("2000, 2000", 1)]


def test_rows_are_sorted_by_what_they_could_save_at_most():
    at_the_roof, far = event(matmul(512, 512, 512), 2.7e-3), event(add(1 << 20), 2e-3)
    rows = found(at_the_roof, far)
    assert [row.name for row in rows] == ["Add", "MatMul"]
    assert rows[0].seconds < rows[1].seconds


def test_amdahls_law_says_what_the_savings_are_worth_to_the_whole():
    rows = found(event(matmul(512, 512, 512), 10e-3), event(add(1 << 20), 2e-3))
    assert rows.total_seconds == pytest.approx(12e-3)
    for row in rows:
        part, faster = row.share, row.seconds / row.bound
        assert row.speedup == pytest.approx(1 / (1 - part + part / faster))


def test_nothing_is_dropped_the_times_of_the_rows_are_that_of_the_whole():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, rng=np.random.default_rng(0)), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    optimizer = optim.AdamW(model.parameters())
    with ProfilerContext(model) as prof, record_function("step"):
        model(Tensor(np.ones((2, 1, 4, 4), np.float32))).sum().backward()
        optimizer.step()
    rows = find_bottlenecks(prof, HAND, OVERHEAD)
    assert sum(row.seconds for row in rows) == pytest.approx(prof.events[0].duration / 1e9)
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert rows.total_seconds == pytest.approx(prof.events[0].duration / 1e9)
    assert {row.kind for row in rows} == {"module", "forward", "backward", "pass", "optimizer", "range"}
    (step,) = (row for row in rows if row.kind == "optimizer")
    assert step.shapes == f"4 parameters, {model.num_parameters()} numbers"


def test_one_interrupted_call_does_not_change_what_is_said_of_the_others():
    usual, interrupted = [event(add(1 << 20), 1e-3)] * 8, event(add(1 << 20), 1.0)
    (row,) = found(*usual, interrupted)
    assert row.seconds == pytest.approx(1.008)
    assert row.efficiency == pytest.approx(12 * (1 << 20) / 20e9 / 1e-3)
    assert row.savings < 9e-3


def test_an_operation_without_a_formula_is_shown_with_all_of_its_time():
    class Cube(tinytorch.autograd.Function):
        """Nobody counts it."""

    rows = found(event(Operation("forward", Cube, (array(8),), (), array(8)), 2e-3), event(add(1 << 20), 1e-3))
    row = rows[0]
    assert (row.name, row.verdict, row.savings, row.bound) == ("Cube", "not counted", 2e-3, 0.0)
    assert "formula" in row.reason
    assert "Cube" in str(rows.table(row_limit=1))


def test_time_between_operations_is_a_row_and_waits_for_python():
    add_event = event(add(1 << 20), 1e-3)
    events = [
        Event("module", "Outer", "", 0, 1_030_000),
        Event("module", "Inner", "inner", 10_000, 1_010_000, parent=0),
        add_event._replace(start=15_000, parent=1),
    ]
    between = next(row for row in found(*events, overhead=5e-6) if row.kind == "module")
    assert (between.name, between.calls, between.verdict) == ("between operations", 2, "overhead-bound")
    assert between.seconds == pytest.approx(30e-6)
    assert between.savings == between.seconds
    assert between.advice == (LARGER_CALLS,)


def test_modules_that_compute_on_their_own_are_not_blamed_on_python():
    """A millisecond between two calls that cost a microsecond each."""
    (row,) = found(Event("module", "Custom", "", 0, 1_000_000), overhead=1e-6)
    assert row.verdict == "not counted"
    assert "1,000 prices of a call" in row.reason


def test_the_pass_has_the_price_of_every_derivative_in_it():
    derivative = Operation("backward", Add, (array(8), array(8)), (), array(8), (True, True), (array(8), array(8)))
    inside = [event(derivative, 1e-6)._replace(parent=0, start=20_000 * i) for i in range(50)]
    walk = next(row for row in found(Event("pass", "backward", "", 0, 450_000), *inside) if row.kind == "pass")
    assert (walk.name, walk.calls, walk.verdict) == ("between derivatives", 1, "overhead-bound")
    assert walk.advice == (LARGER_BATCH,)
    lone = next(iter(found(Event("pass", "backward", "", 0, 400_000))))
    assert lone.verdict == "not counted"


def test_own_ranges_and_failed_calls_have_rows_too():
    rows = found(Event("range", "load", "", 0, 1_000), Event("forward", "Add", "", 2_000, 1_000, failed=True))
    assert {(row.name, row.verdict) for row in rows} == {("load", "not counted"), ("Add", "not counted")}
    assert {row.reason.split(",")[0] for row in rows} == {"your own code in this range", "it failed"}


def test_a_clock_that_did_not_move_makes_no_row():
    assert len(found(event(add(8), 0.0))) == 0
    (row,) = found(event(add(8), 0.0), event(add(8), 0.0), event(add(8), 1e-6))
    assert row.calls == 3


def test_an_empty_profile_has_no_bottlenecks():
    with ProfilerContext() as prof:
        pass
    rows = find_bottlenecks(prof, HAND, OVERHEAD)
    assert (len(rows), rows.total_seconds, rows.points()) == (0, 0.0, [])
    assert "Nothing was recorded" in str(rows)


@pytest.mark.parametrize("overhead", [-1e-9, math.nan, math.inf])
def test_an_impossible_overhead_is_refused(overhead):
    with pytest.raises(ValueError, match="overhead is seconds of a call"):
        found(overhead=overhead)


def test_without_numba_the_error_says_to_pass_a_roofline():
    bottlenecks._measured_roofline.cache_clear()
    with (
        mock.patch("tinytorch.acceleration.compiled.importlib.util.find_spec", return_value=None),
        pytest.raises(ModuleNotFoundError, match=r"roofline=.*pip install"),
    ):
        find_bottlenecks([], overhead=OVERHEAD)


def test_the_machine_is_measured_once():
    bottlenecks._measured_roofline.cache_clear()
    with (
        mock.patch.object(bottlenecks, "need_numba"),
        mock.patch.object(Roofline, "measure", return_value=HAND) as measure,
    ):
        assert find_bottlenecks([], overhead=OVERHEAD).roofline is HAND
        assert find_bottlenecks([event(add(8), 1e-6)], overhead=OVERHEAD).roofline is HAND
    bottlenecks._measured_roofline.cache_clear()
    measure.assert_called_once_with(quick=True)


def test_points_lie_under_the_roof_where_the_rows_say():
    rows = found(event(matmul(512, 512, 512), 5e-3), event(add(1 << 20), 2e-3), Event("module", "M", "", 0, 10_000))
    points = {point.name: point for point in rows.points()}
    assert points.keys() == {"MatMul", "Add"}
    for row in rows[:2]:
        point = points[row.name]
        assert point.intensity == row.intensity
        assert point.achieved == pytest.approx(row.flops / row.seconds)
        assert point.roof == pytest.approx(HAND.bound(row.intensity, level=row.level))
        assert point.share == row.efficiency


def test_the_table_shows_the_first_rows_and_says_what_the_others_take():
    rows = found(*(event(add(n << 20), 1e-3 * n) for n in (1, 2, 3)))
    text = str(rows.table(row_limit=1))
    assert "Add 3145728, 3145728 " in text
    assert "and 2 rows more: 50 % of the time" in text
    assert "chapters/15_acceleration/acceleration" in text
    assert "rows more" not in str(rows.table(row_limit=-1))
    assert str(rows) == str(rows.table())
    assert "<table>" in rows._repr_html_()


def test_the_time_is_shared_out_among_the_verdicts():
    rows = found(
        *(event(add(n << 20), 1e-3 * n) for n in (1, 2)), event(add(1), 9e-3), event(matmul(512, 512, 512), 4e-3)
    )
    assert rows.shares() == pytest.approx({"overhead-bound": 9 / 16, "compute-bound": 4 / 16, "memory-bound": 3 / 16})
    assert list(rows.shares()) == ["overhead-bound", "compute-bound", "memory-bound"]
    assert "56.2 % overhead-bound, 25 % compute-bound, 18.8 % memory-bound" in str(rows)


def test_a_row_above_the_roof_is_flagged():
    rows = found(event(matmul(512, 512, 512), 1e-3))
    assert rows[0].efficiency > 2
    assert rows[0].savings == 0
    assert "ambiguous (above the roof)" in str(rows)


def test_a_row_says_in_words_what_it_is_and_what_to_try():
    (row,) = found(event(add(1 << 20), 2e-3))
    lines = str(row).splitlines()
    assert lines[0] == "Add 1048576, 1048576: memory-bound, 31 % of the roof of DRAM."
    assert lines[1].startswith("At most 1.37 ms less: the whole 3.18 times as fast.")
    assert lines[2].startswith("Try: ")
