"""What a profiler records, when it does, and what happens when something goes wrong."""

import importlib
import itertools
import threading
import weakref

import numpy as np
import pytest

from tinytorch import Tensor, nn, optim
from tinytorch.profiling.dispatch import record_function
from tinytorch.profiling.event import self_times
from tinytorch.profiling.operation import Array
from tinytorch.profiling.profiler.context import ProfilerContext
from tinytorch.profiling.profiler.schedule import ProfilerAction, schedule

methods = importlib.import_module("tests.19_profiling.watched").methods
FLOAT = np.dtype(np.float32)
X = np.ones((5, 3), np.float32)


def mlp() -> nn.Sequential:
    rng = np.random.default_rng(0)
    return nn.Sequential(nn.Linear(3, 4, rng=rng), nn.ReLU(), nn.Linear(4, 2, rng=rng))


def ticks():
    """A clock that moves by 10 ns whenever it is read."""
    return itertools.count(step=10).__next__


def names(prof) -> list[str]:
    return [event.name for event in prof.events]


OWN = methods()


def test_a_training_step_is_recorded_nested_with_its_ranges():
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with ProfilerContext(model) as prof, record_function("train"):
        model(Tensor(X)).sum().backward()
        optimizer.step()
    assert [(e.kind, e.name, e.path, e.parent) for e in prof.events] == [
        ("range", "train", "", -1),
        ("module", "Sequential", "", 0),
        ("module", "Linear", "0", 1),
        ("forward", "Linear", "0", 2),
        ("module", "ReLU", "1", 1),
        ("forward", "ReLU", "1", 4),
        ("module", "Linear", "2", 1),
        ("forward", "Linear", "2", 6),
        ("forward", "Sum", "", 0),
        ("pass", "backward", "", 0),
        ("backward", "SumBackward", "", 9),
        ("backward", "LinearBackward", "2", 9),
        ("backward", "ReLUBackward", "1", 9),
        ("backward", "LinearBackward", "0", 9),
        ("optimizer", "SGD.step", "", 0),
    ]
    assert not any(event.failed for event in prof.events)


def test_times_are_those_of_the_clock_and_own_times_add_up():
    model = mlp()
    with ProfilerContext(model, clock=ticks()) as prof:
        model(Tensor(X))
        Tensor(X).exp()
    # each of the 8 calls reads the clock at its beginning and at its end, and the profile once before them all
    assert [(e.start, e.duration) for e in prof.events] == [
        (10, 130),
        (20, 30),
        (30, 10),
        (60, 30),
        (70, 10),
        (100, 30),
        (110, 10),
        (150, 10),
    ]
    assert self_times(prof.events) == [40, 20, 10, 20, 10, 20, 10, 10]
    assert prof.key_averages().self_cpu_time_total == pytest.approx((130 + 10) / 1000)


def test_events_tell_what_operations_were_given():
    layer = nn.Linear(3, 2, rng=np.random.default_rng(0))
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    with ProfilerContext(layer) as prof:
        layer(Tensor(X)).sum(axis=1).sum().backward()
        optimizer.step()
    given = {event.name: event.operation for event in prof.events if event.operation}
    x, weight, bias, y = (Array(shape, FLOAT) for shape in ((5, 3), (2, 3), (2,), (5, 2)))
    assert given["Linear"][1:5] == (given["LinearBackward"].function, (x, weight, bias), (), y)
    assert given["LinearBackward"].needs_input_grad == (False, True, True)
    assert given["SumBackward"].inputs[1:] == (None, None)
    assert given["SGD.step"].inputs == (weight, bias)
    assert [event.operation for event in prof.events if event.kind in ("module", "pass")] == [None, None]


def test_no_array_is_kept_alive():
    with ProfilerContext() as prof:
        x = np.ones((4, 3), np.float32)
        gone = weakref.ref(x)
        Tensor(x, requires_grad=True).exp().sum().backward()
        del x
        assert gone() is None
    assert len(prof.events) == 5


def test_outside_of_the_block_the_framework_runs_its_own_code():
    with ProfilerContext():
        assert not set(OWN) & set(methods())
    assert methods() == OWN


# Windows


def test_a_schedule_installs_nothing_in_wait_and_throws_the_warm_up_away():
    seen, installed = [], []
    plan = schedule(wait=1, warmup=1, active=2, repeat=2)
    with ProfilerContext(schedule=plan, on_trace_ready=lambda prof: seen.append(names(prof))) as prof:
        for step in range(10):
            installed.append(methods() != OWN)
            with record_function(f"step {step}"):
                Tensor(X).exp()
            prof.step()
        assert prof.step_num == 10
    assert installed == [False, True, True, True, False, True, True, True, False, False]
    assert seen == [["step 2", "Exp", "step 3", "Exp"], ["step 6", "Exp", "step 7", "Exp"]]
    assert names(prof) == seen[-1]


def test_windows_without_a_pause_between_them_are_kept_apart():
    seen = []
    with ProfilerContext(
        schedule=schedule(wait=0, warmup=0, active=2), on_trace_ready=lambda p: seen.append(len(p.events))
    ) as prof:
        for step in range(5):
            for _ in range(step):
                Tensor(X).exp()
            prof.step()
    assert seen == [0 + 1, 2 + 3]  # the third was not complete


def test_the_callback_is_not_observed_and_may_fail():
    def callback(prof):
        assert methods() == OWN
        raise LookupError("of the callback")

    def run():
        with prof:
            Tensor(X).exp()
            prof.step()

    prof = ProfilerContext(schedule=schedule(wait=0, warmup=0, active=1), on_trace_ready=callback)
    with pytest.raises(LookupError, match="of the callback"):
        run()
    assert names(prof) == ["Exp"]
    assert methods() == OWN


def test_a_range_over_the_edge_of_a_window_is_cut_there():
    with ProfilerContext(schedule=schedule(wait=0, warmup=1, active=1, repeat=1), clock=ticks()) as prof:
        with record_function("begins before"):
            prof.step()
            Tensor(X).exp()
        with record_function("ends after"):
            Tensor(X).log()
            prof.step()
            Tensor(X).exp()
    assert [(e.name, e.parent) for e in prof.events] == [("Exp", -1), ("ends after", -1), ("Log", 1)]
    assert prof.events[1].end > prof.events[2].end


def test_the_buffer_is_bounded_and_what_is_kept_stays_nested():
    model = mlp()
    for room in range(1, 9):
        with ProfilerContext(model, max_events=room, clock=ticks()) as prof:
            model(Tensor(X))
            with record_function("later"):
                pass
        assert [(e.name, e.parent) for e in prof.events] == [
            ("Sequential", -1),
            ("Linear", 0),
            ("Linear", 1),
            ("ReLU", 0),
            ("ReLU", 3),
            ("Linear", 0),
            ("Linear", 5),
            ("later", -1),
        ][:room]
        assert len(prof.events) + prof.dropped == 8
        assert prof.events[0].duration >= 70  # each of the six calls in it has ended before it
        assert all(e.parent < 0 or prof.events[e.parent].end >= e.end for e in prof.events)
        assert (f"{8 - room} later calls were dropped" in str(prof.table())) == (room < 8)


# What goes wrong


def test_an_exception_is_passed_on_and_the_failed_calls_are_marked():
    model, told = mlp(), []
    prof = ProfilerContext(model, on_trace_ready=told.append)

    def run():
        with prof:
            Tensor(X).exp()
            with pytest.raises(ValueError, match="shape"):
                Tensor(X) @ Tensor(X)
            model(Tensor(np.ones((5, 7), np.float32)))

    with pytest.raises(ValueError, match="Linear takes"):
        run()
    assert [(e.name, e.failed, e.operation is None) for e in prof.events] == [
        ("Exp", False, False),
        ("MatMul", True, True),
        ("Sequential", True, True),
        ("Linear", True, True),
    ]
    assert told == []
    assert "ended in an exception: MatMul, Sequential, Linear in 0" in str(prof.table())
    assert methods() == OWN
    with prof:
        model(Tensor(X))
    assert (len(prof.events), told) == (7, [prof])


def nothing_ran():
    with ProfilerContext() as prof:
        pass
    return prof


def no_window():
    with ProfilerContext(schedule=schedule(wait=5, warmup=0, active=1)) as prof:
        prof.step()
    return prof


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (ProfilerContext, "was not entered yet"),
        (nothing_ran, "ran in thread MainThread"),
        (no_window, "after 1 calls of step"),
    ],
)
def test_an_empty_profile_says_why(make, why, tmp_path):
    prof = make()
    assert (prof.events, len(prof.key_averages()), prof.dropped) == ((), 0, 0)
    for group_by in ("name", "module", "shapes"):
        assert why in str(prof.key_averages(group_by).table())
    assert why in prof.flame().describe()
    assert why in prof.flame().svg
    assert why in prof._repr_html_()
    prof.export_chrome_trace(tmp_path / "trace.json")
    assert why in (tmp_path / "trace.json").read_text()


def test_it_cannot_be_entered_twice_at_once_but_again():
    prof = ProfilerContext()
    with prof:
        Tensor(X).exp()
        with pytest.raises(RuntimeError, match="at work already"), prof:
            pass
        Tensor(X).log()
    assert names(prof) == ["Exp", "Log"]
    with prof:
        Tensor(X).log()
    assert names(prof) == ["Log"]


def test_entering_it_again_forgets_the_last_profile_at_once():
    prof = ProfilerContext(schedule=schedule(wait=1, warmup=0, active=1, repeat=1), max_events=1)
    with prof:
        prof.step()
        Tensor(X).exp().log()
    assert (names(prof), prof.dropped, prof.step_num) == (["Exp"], 1, 1)
    with prof:
        assert (names(prof), prof.dropped, prof.step_num) == ([], 0, 0)


def test_it_cannot_be_entered_again_while_its_schedule_waits():
    with ProfilerContext(schedule=schedule(wait=1, warmup=0, active=1)) as prof:
        assert methods() == OWN
        with pytest.raises(RuntimeError, match="at work already"):
            prof.__enter__()


def test_only_the_thread_that_entered_it_is_recorded_and_may_step_or_leave():
    def work():
        Tensor(X).log()
        with pytest.raises(RuntimeError, match="in another thread"):
            prof.step()
        with pytest.raises(RuntimeError, match="in another thread"):
            prof.__exit__()

    with ProfilerContext() as prof:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        Tensor(X).exp()
    assert names(prof) == ["Exp"]


def test_reading_while_it_records_and_stepping_when_it_does_not_are_refused():
    with ProfilerContext() as prof:
        with pytest.raises(RuntimeError, match="is recording"):
            prof.table()
        assert "is recording" in prof._repr_html_()
    with pytest.raises(RuntimeError, match="outside of its block"):
        prof.step()
    with pytest.raises(RuntimeError, match="outside of its block"):
        prof.__exit__()


def test_bad_arguments_are_refused_and_nothing_is_installed():
    with pytest.raises(ValueError, match="max_events"):
        ProfilerContext(max_events=0)
    with pytest.raises(TypeError, match="returns a ProfilerAction"), ProfilerContext(schedule=lambda step: "wait"):
        pass
    with ProfilerContext(schedule=lambda step: ProfilerAction.RECORD) as prof:
        Tensor(X).exp()
    assert names(prof) == ["Exp"]
    assert methods() == OWN


def test_a_notebook_shows_table_and_picture_and_the_terminal_the_table(capsys):
    with ProfilerContext() as prof:
        Tensor(X).exp()
    shown = prof._repr_html_()
    assert "<table>" in shown
    assert "<svg" in shown
    prof.print_rich()
    assert "Exp" in capsys.readouterr().out
