"""One function under the clock: what a sample is, what is subtracted, when it has warmed up, and what it refuses.

No real time is read here: the clock is a made-up machine's.
"""

import gc
import importlib
import re
import sys

import numpy as np
import pytest

from tinytorch.profiling.timing.clock import ClockCost, time_calls
from tinytorch.profiling.timing.timer import Timer

FakeMachine = importlib.import_module("tests.19_profiling.fake_machine").FakeMachine


def timer(machine, budget=1.0, **options):
    return Timer(budget, clock=machine.clock, rng=np.random.default_rng(0), **options)


def test_the_clocks_step_and_cost_are_found():
    cost = ClockCost.measure(FakeMachine(read=3e-7).clock)
    assert cost.resolution == pytest.approx(3e-7)
    assert cost.read == pytest.approx(3e-7)
    coarse = ClockCost.measure(FakeMachine(read=3e-7, step=1e-3).clock)
    assert coarse.resolution == pytest.approx(1e-3)
    assert coarse.read < 1e-3


def test_the_cost_of_the_loop_is_found():
    """A clock that counts what Python's profiler is told: calls of what the loop calls, and of the clock."""
    ticks = 0

    def hook(frame, event, arg):
        nonlocal ticks
        ticks += event == "call"

    before = sys.getprofile()
    sys.setprofile(hook)
    try:
        cost = ClockCost.measure(lambda: ticks * 1e-6)
    finally:
        sys.setprofile(before)
    assert (cost.read, cost.call) == (pytest.approx(1e-6), pytest.approx(1e-6))


def test_a_long_function_is_timed_call_by_call_and_exactly():
    machine = FakeMachine()
    m = timer(machine).measure(machine.function("f", 0.01))
    assert m.calls == 1
    assert len(m.samples) + m.warmup == len(machine.calls)
    np.testing.assert_allclose(m.samples, 0.01, rtol=1e-9)
    assert len(m.samples) == pytest.approx(100, abs=1)


@pytest.mark.parametrize("step", [0.0, 1e-6, 1e-4])
def test_a_function_shorter_than_the_clock_can_see_is_batched_until_the_clock_errs_by_a_thousandth(step):
    machine = FakeMachine(read=1e-7, step=step)
    m = timer(machine, budget=2.0).measure(machine.function("f", 2e-6))
    assert m.calls * 2e-6 >= 0.999e3 * max(step, 1e-7)
    np.testing.assert_allclose(m.samples, 2e-6, rtol=2.1e-3)
    assert m.median == pytest.approx(2e-6, rel=1e-3)


def test_the_reading_of_the_clock_and_the_loop_are_subtracted_and_shown():
    cost = ClockCost(resolution=1e-9, read=5e-6, call=1e-7)
    assert cost.per_call(5e-6 + 10 * (1e-7 + 3e-6), 10) == pytest.approx(3e-6)
    machine = FakeMachine(read=5e-6)
    m = timer(machine, block=1e-4).measure(machine.function("f", 1e-5))
    assert m.overhead == pytest.approx(5e-6 / m.calls)
    np.testing.assert_allclose(m.samples, 1e-5, rtol=1e-6)
    assert "of 5 µs to read the clock" in str(m)


def test_a_function_that_takes_nothing_is_never_negative_and_said_to_be_too_short():
    cost = ClockCost(resolution=1e-8, read=5e-8, call=1e-7)
    assert 0 < cost.per_call(3e-8, 10) <= 1e-9
    machine = FakeMachine()
    t = timer(machine, budget=0.01, block=1e-3)
    t.cost = ClockCost(5e-8, 5e-8, call=1e-7)
    assert "Too short" in str(t.measure(machine.function("f", 1.5e-7)))
    assert "Too short" not in str(t.measure(machine.function("f", 5e-7)))
    pair = {"f": machine.function("f", 5e-7), "g": machine.function("g", 1.5e-7)}
    assert "Too short" in str(t.compare(pair))


def test_a_spike_during_calibration_does_not_leave_samples_that_are_too_short():
    machine = FakeMachine()
    plain = machine.function("f", 1e-7)

    def f():
        plain()
        if len(machine.calls) in (2, 3, 4):
            machine.now += 0.003

    assert timer(machine, budget=0.05).measure(f).calls >= 400


def test_warm_up_lasts_until_the_time_no_longer_falls():
    machine = FakeMachine()

    def f():
        machine.calls.append("f")
        machine.now += 0.001 * (1 + 3 * 0.8 ** len(machine.calls))  # 30 calls to the last percent

    m = timer(machine, budget=10.0).measure(f)
    assert 30 <= m.warmup < 60
    assert m.samples.max() < 1.01 * m.samples.min()


def test_a_function_that_falls_forever_is_warmed_up_for_a_quarter_of_the_budget():
    machine = FakeMachine()

    def f():
        machine.calls.append("f")
        machine.now += 0.001 * 0.98 ** len(machine.calls) + 1e-5

    assert timer(machine, budget=0.01).measure(f).warmup <= 5


def test_the_first_call_compiles_and_does_not_end_the_warm_up():
    machine = FakeMachine()

    def f():
        machine.calls.append("f")
        machine.now += 5.0 if len(machine.calls) == 1 else 1e-3

    m = timer(machine).measure(f)
    assert m.warmup > 5
    assert m.samples.max() < 1.1e-3


def test_a_slow_function_takes_as_many_samples_as_its_median_needs_and_no_more():
    machine = FakeMachine()
    m = timer(machine).measure(machine.function("f", 60.0))
    assert (len(m.samples), m.warmup) == (6, 2)
    assert len(timer(machine, confidence=0.99).measure(machine.function("f", 60.0)).samples) == 8


def test_percentiles_are_given_from_exactly_the_samples_that_they_take():
    machine = FakeMachine(np.random.default_rng(0), noise=0.2)
    f = machine.function("f", 1.0)
    enough, too_few = (timer(machine).measure(f, at_least=n) for n in (473, 472))
    assert (len(enough.samples), len(too_few.samples)) == (473, 472)
    e = enough.interval(99)
    assert e.low <= enough.percentile(99) == e.value <= e.high
    for p in (99, 1):
        with pytest.raises(ValueError, match=rf"p{p} at 95 % takes 473 samples, there are 472: .*at_least=473"):
            too_few.percentile(p)
    assert "p99" in str(enough)
    assert "p99" not in str(too_few)


@pytest.mark.parametrize("p", [0, 100, -1, 101, float("nan")])
def test_the_extremes_are_no_percentiles(p):
    machine = FakeMachine()
    m = timer(machine).measure(machine.function("f", 0.01))
    with pytest.raises(ValueError, match=r"between 0 and 100, got .*samples\.min"):
        m.percentile(p)


def test_the_median_its_interval_and_the_quartiles_are_those_of_the_samples():
    machine = FakeMachine(np.random.default_rng(0), noise=0.2)
    m = timer(machine, budget=10.0).measure(machine.function("f", 0.1))
    assert m.median == m.percentile(50) == np.median(m.samples)
    assert m.iqr == np.subtract(*np.quantile(m.samples, (0.75, 0.25)))
    assert m.interval().low < m.median < m.interval().high


def test_drift_and_outliers_are_reported():
    machine = FakeMachine(np.random.default_rng(0), noise=0.01, drift=0.4, spikes=0.05)
    drifting = timer(machine, budget=8.0).measure(machine.function("f", 0.01))
    assert 0.1 < drifting.drift < 0.4
    assert "Drift: from the first third of the samples to the last the time rose by" in str(drifting)
    assert drifting.outliers.high_severe > 10
    even = FakeMachine(np.random.default_rng(0), noise=0.01)
    steady = timer(even).measure(even.function("f", 0.01))
    assert steady.drift == 0.0
    assert "Drift" not in str(steady)


def test_a_measurement_prints_what_was_measured_on_what():
    machine = FakeMachine(np.random.default_rng(0), noise=0.1)
    m = timer(machine, budget=5.0).measure(machine.function("f", 0.01), label="a <step>")
    text = str(m)
    assert text == str(m.table())
    assert text.startswith("a <step>\n")
    assert "Python" in text
    assert "each of one call" in text
    assert re.search(r"^median +[\d.]+ ms +[\d.]+ ms to [\d.]+ ms$", text, re.MULTILINE)
    assert "a &lt;step&gt;" in m._repr_html_()
    assert "each the mean of" in str(timer(machine, budget=0.01).measure(machine.function("f", 1e-7)))


@pytest.mark.parametrize("compared", [False, True])
def test_an_exception_is_passed_on_and_leaves_timer_and_collector_as_they_were(compared):
    machine = FakeMachine()
    good = machine.function("f", 0.01)

    def fails_later():
        good()
        if len(machine.calls) > 20:
            raise RuntimeError("no more")

    t = timer(machine)
    with pytest.raises(RuntimeError, match="no more"):
        t.compare({"a": good, "b": fails_later}) if compared else t.measure(fails_later)
    assert gc.isenabled()
    assert t.measure(good).median == pytest.approx(0.01)


def test_the_collector_rests_during_samples_and_works_between_them():
    seen = []
    time_calls(lambda: seen.append(gc.isenabled()), 2, FakeMachine().clock)
    assert seen == [False, False]
    assert gc.isenabled()
    gc.disable()
    try:
        time_calls(lambda: None, 1, FakeMachine().clock)
        assert not gc.isenabled()  # who had it off keeps it off
    finally:
        gc.enable()


def test_the_garbage_of_many_samples_does_not_pile_up():
    machine = FakeMachine()
    alive = 0

    class Garbage:
        def __init__(self):
            nonlocal alive
            alive += 1
            self.me = self

        def __del__(self):
            nonlocal alive
            alive -= 1

    def f():
        Garbage()
        machine.now += 0.001

    most = 0

    def watch():
        nonlocal most
        f()
        most = max(most, alive)

    timer(machine, budget=20.0).measure(watch)
    assert most < 5000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "the budget is 0"),
        ({"budget": float("nan")}, "the budget is nan"),
        ({"confidence": 95}, r"the confidence is 95: .* 0\.95"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Timer(**options)


def test_what_is_no_function_is_refused_before_anything_runs():
    machine = FakeMachine()
    with pytest.raises(TypeError, match="no function to time but a float: write lambda"):
        timer(machine).measure(3.0)
    with pytest.raises(TypeError, match="b is no function"):
        timer(machine).compare({"a": machine.function("a", 1.0), "b": None})
    assert machine.calls == []


def test_a_clock_that_stands_still_or_goes_back_is_refused():
    with pytest.raises(ValueError, match="stood still"):
        Timer(clock=lambda: 1.0).measure(lambda: None)
    backwards = iter(range(0, -1000, -1))
    with pytest.raises(ValueError, match=r"went back by 1 s: .*perf_counter"):
        time_calls(lambda: None, 1, lambda: next(backwards))


def test_a_progress_bar_is_shown_only_where_it_is_wanted(capsys):
    machine = FakeMachine()
    for progress in (False, True):
        timer(machine, progress=progress).measure(machine.function("f", 0.01), label="my function")
        assert ("my function" in capsys.readouterr().out) == progress  # stderr is no terminal here
