"""Times of nested events."""

from tinytorch.profiling.event import Event, self_times


def test_self_times_add_up_to_the_time_of_the_outermost():
    events = [
        Event("module", "Sequential", "", 0, 100),
        Event("module", "Linear", "0", 10, 60, parent=0),
        Event("forward", "Linear", "0", 15, 50, parent=1),
        Event("forward", "ReLU", "1", 75, 20, parent=0),
        Event("range", "load", "", 120, 30),
    ]
    assert self_times(events) == [20, 10, 50, 20, 30]
    assert sum(self_times(events)[:4]) == events[0].duration
    assert events[1].end == 70
