"""Which steps are recorded."""

import pytest

from tinytorch import Tensor
from tinytorch.profiling.profiler.context import ProfilerContext
from tinytorch.profiling.profiler.schedule import ProfilerAction, schedule

W, U, R, S = ProfilerAction.NONE, ProfilerAction.WARMUP, ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE


@pytest.mark.parametrize(
    ("plan", "actions"),
    [
        (schedule(wait=2, warmup=1, active=3), [W, W, U, R, R, S, W, W, U, R, R, S]),
        (schedule(wait=1, warmup=0, active=1, repeat=2), [W, S, W, S, W, W, W]),
        (schedule(wait=0, warmup=0, active=1), [S, S, S]),
    ],
)
def test_each_cycle_waits_warms_up_and_records(plan, actions):
    assert [plan(step) for step in range(len(actions))] == actions


@pytest.mark.parametrize("numbers", [(-1, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 1, -1), (0, 0.5, 1)])
def test_a_number_of_steps_that_is_none_is_refused(numbers):
    with pytest.raises(ValueError, match="is a number of steps"):
        schedule(*numbers)


@pytest.mark.parametrize(("wait", "warmup", "active", "steps"), [(0, 0, 2, 4), (0, 0, 1, 3), (2, 1, 2, 9)])
def test_a_complete_window_is_not_lost_to_one_that_was_cut(wait, warmup, active, steps):
    ready = []
    plan = schedule(wait=wait, warmup=warmup, active=active)
    with ProfilerContext(schedule=plan, on_trace_ready=lambda prof: ready.append(len(prof.events))) as prof:
        for _ in range(steps):
            Tensor([1.0]).exp()
            prof.step()
    assert len(prof.events) == active
    assert ready == [active] * (steps // (wait + warmup + active))
