"""Two profiles side by side."""

from types import SimpleNamespace

import pytest

from tinytorch import Tensor
from tinytorch.profiling.event import Event
from tinytorch.profiling.profiler.changes import compare
from tinytorch.profiling.profiler.context import ProfilerContext


def profile(*events: Event) -> SimpleNamespace:
    return SimpleNamespace(events=events)


BEFORE = profile(
    Event("module", "Sequential", "", 0, 10_000),
    Event("forward", "Linear", "0", 0, 4_000, parent=0),
    Event("forward", "Linear", "2", 4_000, 1_000, parent=0),
    Event("forward", "ReLU", "1", 5_000, 3_000, parent=0),
)
AFTER = profile(
    Event("module", "Sequential", "", 0, 7_000),
    Event("forward", "Linear", "0", 0, 2_000, parent=0),
    Event("forward", "Linear", "2", 2_000, 2_000, parent=0),
    Event("forward", "GELU", "1", 4_000, 1_000, parent=0),
)


def as_tuples(changes):
    return [(c.key, c.path, round(1e9 * c.won), c.calls_before, c.calls_after) for c in changes]


def test_own_times_are_compared_by_place_and_the_largest_gain_comes_first():
    changes = compare(BEFORE, AFTER)
    assert as_tuples(changes) == [
        ("ReLU", "1", 3000, 1, 0),
        ("Linear", "0", 2000, 1, 1),
        ("nn.Sequential", "", 0, 1, 1),
        ("Linear", "2", -1000, 1, 1),
        ("GELU", "1", -1000, 0, 1),
    ]
    assert [change.ratio for change in changes] == [None, 2.0, 1.0, 0.5, None]


def test_by_name_all_modules_are_together():
    changes = compare(BEFORE, AFTER, by="name")
    assert as_tuples(changes)[1:3] == [("Linear", "", 1000, 2, 2), ("nn.Sequential", "", 0, 1, 1)]


@pytest.mark.parametrize("by", ["path", "name"])
def test_the_changes_add_up_to_that_of_the_whole(by):
    changes = compare(BEFORE, AFTER, by)
    assert changes.total.before == pytest.approx(10e-6)
    assert changes.total.after == pytest.approx(7e-6)
    assert sum(change.won for change in changes) == pytest.approx(changes.total.won)


def test_the_table_shows_what_moved_most_either_way_and_the_total():
    lines = str(compare(BEFORE, AFTER).table(row_limit=3)).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "10 µs before, 7 µs after",
        "name path before after won before / after calls",
        "ReLU 1 3 µs 0 ns 3 µs only before 1 / 0",
        "Linear 0 4 µs 2 µs 2 µs 2 1",
        "Linear 2 1 µs 2 µs -1 µs 0.5 1",
        "total 10 µs 7 µs 3 µs 1.43 4",
        "and 2 rows more, which moved less",
    ]


def test_another_number_of_calls_is_pointed_out():
    twice = profile(*AFTER.events, Event("forward", "Linear", "0", 8_000, 2_000))
    assert "made more calls" in str(compare(AFTER, twice))
    assert "made more calls" not in str(compare(BEFORE, AFTER))


def test_recorded_profiles_can_be_compared_and_an_empty_one_is_refused():
    with ProfilerContext() as once:
        Tensor([1.0]).exp()
    with ProfilerContext() as twice:
        Tensor([1.0]).exp().exp()
    (change,) = compare(once, twice)
    assert (change.calls_before, change.calls_after) == (1, 2)
    with pytest.raises(ValueError, match="the profile `after` is empty"):
        compare(once, ProfilerContext())
    with pytest.raises(ValueError, match="the profile `before` is empty"):
        compare(ProfilerContext(), once)
    with pytest.raises(ValueError, match="by is one of path, name, got 'module'"):
        compare(once, twice, by="module")
