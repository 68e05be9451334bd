"""Sums over events."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch import Tensor, nn
from tinytorch.profiling.event import Event
from tinytorch.profiling.profiler.averages import WHOLE, key_averages
from tinytorch.profiling.profiler.context import ProfilerContext

EVENTS = [
    Event("module", "Sequential", "", 0, 10_000),
    Event("module", "Block", "0", 1_000, 7_000, parent=0),
    Event("module", "Linear", "0.mlp", 2_000, 3_000, parent=1),
    Event("forward", "Linear", "0.mlp", 2_500, 2_000, parent=2),
    Event("forward", "ReLU", "0", 6_000, 1_000, parent=1),
    Event("pass", "backward", "", 20_000, 5_000),
    Event("backward", "LinearBackward", "0.mlp", 21_000, 3_000, parent=5),
]


def trees(seed: int) -> list[Event]:
    """Random events, nested as calls are, of few names and paths."""
    rng = np.random.default_rng(seed)
    events: list[Event] = []

    def grow(start: int, end: int, parent: int, depth: int) -> None:
        for _ in range(rng.integers(0, 4) if depth < 5 else 0):
            begin, stop = sorted(int(t) for t in rng.integers(start, end + 1, 2))
            kind = str(rng.choice(["module", "forward", "range"]))
            path = ".".join(rng.choice(["a", "b"], int(rng.integers(0, 3))))
            events.append(Event(kind, str(rng.choice(["A", "B"])), path, begin, stop - begin, parent))
            grow(begin, stop, len(events) - 1, depth + 1)
            start = stop

    grow(0, 10**6, -1, 0)
    return events


def as_tuples(averages):
    return [(row.key, row.count, row.cpu_time_total, row.self_cpu_time_total) for row in averages]


def test_by_name_layers_operations_and_derivatives_stand_apart():
    averages = key_averages(EVENTS)
    assert as_tuples(averages) == [
        ("nn.Sequential", 1, 10.0, 3.0),
        ("nn.Block", 1, 7.0, 3.0),
        ("LinearBackward", 1, 3.0, 3.0),
        ("Linear", 1, 2.0, 2.0),
        ("backward", 1, 5.0, 2.0),
        ("nn.Linear", 1, 3.0, 1.0),
        ("ReLU", 1, 1.0, 1.0),
    ]
    assert averages.self_cpu_time_total == 15.0
    assert [row.key for row in averages[:2]] == ["nn.Sequential", "nn.Block"]


def test_by_module_forward_and_backward_are_together_and_part_of_the_modules_around_them():
    averages = key_averages(EVENTS, "module")
    assert sorted(as_tuples(averages)) == [
        (WHOLE, 1, 15.0, 5.0),
        ("0", 1, 7.0 + 3.0, 4.0),
        ("0.mlp", 1, 3.0 + 3.0, 6.0),
    ]
    assert {row.key: row.name for row in averages} == {WHOLE: "nn.Sequential", "0": "nn.Block", "0.mlp": "nn.Linear"}


def test_by_shapes_calls_of_other_sizes_stand_apart():
    with ProfilerContext() as prof:
        for n in (2, 3, 3):
            Tensor(np.ones((n, 4), np.float32)).exp()
    averages = prof.key_averages("shapes")
    assert sorted((row.key, row.input_shapes, row.count) for row in averages) == [
        ("Exp", ((2, 4),), 1),
        ("Exp", ((3, 4),), 2),
    ]
    assert "3x4" in str(averages)


def test_calls_within_calls_of_the_same_name_count_once_in_the_time():
    events = [Event("range", "load", "", 0, 8_000), Event("range", "load", "", 1_000, 5_000, parent=0)]
    (row,) = key_averages(events)
    assert (row.count, row.cpu_time_total, row.self_cpu_time_total, row.cpu_time) == (2, 8.0, 8.0, 4.0)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["name", "module", "shapes"]))
def test_own_times_add_up_to_the_outermost_and_no_group_exceeds_them(seed, group_by):
    events = trees(seed)
    whole = sum(event.duration for event in events if event.parent < 0) / 1000
    averages = key_averages(events, group_by)
    assert averages.self_cpu_time_total == pytest.approx(whole)
    assert all(0 <= row.self_cpu_time_total <= row.cpu_time_total + 1e-9 <= whole + 2e-9 for row in averages)
    counted = [event for event in events if group_by != "module" or event.kind == "module"]
    assert sum(row.count for row in averages) == len(counted)


def test_a_real_profile_adds_up_too():
    model = nn.GPT(16, embed_dim=8, num_layers=2, num_heads=2, max_seq_len=8, rng=np.random.default_rng(0))
    with ProfilerContext(model) as prof:
        model(np.zeros((1, 4), np.int64)).sum().backward()
    whole = sum(event.duration for event in prof.events if event.parent < 0) / 1000
    for group_by in ("name", "module", "shapes"):
        assert prof.key_averages(group_by).self_cpu_time_total == pytest.approx(whole)
    total = {row.key: row.cpu_time_total for row in prof.key_averages("module")}
    assert total.pop(WHOLE) == pytest.approx(whole)
    assert total.keys() <= {path for path, _ in model.named_modules()}
    assert {"blocks.0", "blocks.1.attention"} <= total.keys()


def test_a_module_that_only_went_backward_has_a_time_per_call():
    row, _ = key_averages([Event("backward", "LinearBackward", "0", 0, 3_000)], "module")
    assert (row.key, row.count, row.cpu_time) == ("0", 0, 3.0)


def test_the_table_is_sorted_limited_and_written_with_units():
    table = key_averages(EVENTS, notes=["a note"]).table(sort_by="cpu_time_total", row_limit=2)
    assert str(table).splitlines() == [
        "15 µs of recorded time",
        "name           self CPU  share  CPU total  CPU per call  calls",
        "nn.Sequential      3 µs   20 %      10 µs         10 µs      1",
        "nn.Block           3 µs   20 %       7 µs          7 µs      1",
        "and 5 rows more",
        "a note",
    ]
    assert [row[0] for row in key_averages(EVENTS).table("key").rows][:3] == ["Linear", "LinearBackward", "ReLU"]
    assert len(key_averages(EVENTS).table("count", row_limit=-1).rows) == 7


def test_an_unknown_order_or_group_lists_those_that_there_are():
    with pytest.raises(ValueError, match=r"sort_by is one of self_cpu_time_total, .*, got 'cuda_time'"):
        key_averages(EVENTS).table(sort_by="cuda_time")
    with pytest.raises(ValueError, match="group_by is one of name, module, shapes, got 'stack'"):
        key_averages(EVENTS, "stack")
