"""The timer's test of itself: it counts right, and it fails where, and only where, a promise is broken."""

import importlib
import itertools

import numpy as np
import pytest

from tinytorch.profiling import self_test as command
from tinytorch.profiling.self_test import SelfTest, Trial, mann_whitney, self_test, square_roots, welch
from tinytorch.profiling.timing.statistics import Rate
from tinytorch.profiling.timing.timer import Timer

fake = importlib.import_module("tests.19_profiling.fake_machine")


def result_on(kind, trials=100, cheat=1.0):
    """Test a timer on a made-up machine, where a unit of work takes 0.1 ms; every second function `cheat` times."""
    machine, rng = fake.machine(kind, 0)
    turns = itertools.cycle([1.0, cheat])

    def workload(units):
        return machine.function("work", 1e-4 * units * next(turns))

    return self_test(Timer(2.0, clock=machine.clock, rng=rng), trials, rng, workload)


@pytest.mark.parametrize("kind", ["sway", "spikes", "all"])
def test_on_a_bad_machine_the_promises_are_kept(kind):
    result = result_on(kind)
    assert result.false_positives.value <= 0.05
    assert result.found.value >= 0.9
    assert result.refuted == []
    if kind == "sway":
        assert result.naive_false_positives.value > 0.5
        assert result.naive_ranks_false_positives.value > 0.5


def test_a_timer_whose_equal_things_are_not_equal_is_refuted():
    result = result_on("even", 20, cheat=1.03)
    assert result.false_positives.value > 0.9
    assert any("called different" in text for text in result.refuted)


def test_a_timer_that_cannot_see_2_percent_is_refuted():
    machine = fake.FakeMachine(np.random.default_rng(0), noise=0.5)
    rng = np.random.default_rng(0)
    timer = Timer(1.0, clock=machine.clock, rng=rng)
    result = self_test(timer, 20, rng, lambda units: machine.function("work", 1e-3 * units))
    assert any("are found" in text for text in result.refuted)


def test_a_difference_in_the_wrong_direction_is_not_found():
    """A unit more takes less: every difference is seen, and none is right."""
    machine, rng = fake.machine("even", 0)
    timer = Timer(2.0, clock=machine.clock, rng=rng)
    result = self_test(timer, 10, rng, lambda units: machine.function("work", 1e-2 / (units - 40)))
    assert result.found.hits == 0


@pytest.mark.parametrize(
    ("false_positives", "found", "refuted"),
    [
        (Rate(0, 30), Rate(30, 30), 0),
        (Rate(6, 30), Rate(21, 30), 0),  # once in 305 and in 495 times where the promise is just kept
        (Rate(7, 30), Rate(30, 30), 1),
        (Rate(0, 30), Rate(20, 30), 1),
        (Rate(30, 30), Rate(0, 30), 2),
        (Rate(21, 200), Rate(166, 200), 0),
        (Rate(22, 200), Rate(165, 200), 2),
    ],
)
def test_a_promise_is_refuted_by_what_happens_once_in_a_thousand_times_where_it_is_kept(
    false_positives, found, refuted
):
    result = SelfTest(false_positives, found, Rate(15, 30), Rate(15, 30))
    assert len(result.refuted) == refuted
    assert str(result).count("Refuted: ") == refuted
    assert ("kept, as far as" in str(result)) == (refuted == 0)


def test_the_result_is_a_table_of_rates_with_their_intervals_and_what_is_promised():
    result = SelfTest.of([Trial(False, True, True, True)] * 6 + [Trial(True, False, False, True)] * 4)
    assert result == SelfTest(Rate(4, 10), Rate(6, 10), Rate(6, 10), Rate(10, 10))
    assert "4 of 10" in str(result)
    assert "12.2 % to 73.8 %" in str(result)
    assert "at most 5 %" in result._repr_html_()


def test_51_units_are_2_percent_more_of_the_same_work(monkeypatch):
    calls = []
    monkeypatch.setattr(command.np, "sqrt", lambda x, out: calls.append((id(x), id(out))))
    workload = square_roots()
    for units in (50, 51):
        workload(units)()
    assert len(calls) == 101
    assert len(set(calls)) == 1  # on the same memory: another place alone can make a difference


def test_a_timer_tests_itself_with_real_work():
    timer = Timer(budget=0.02, rng=np.random.default_rng(0))
    result = timer.self_test(trials=2)
    assert result.false_positives.trials == result.found.trials == result.naive_false_positives.trials == 2


def test_the_tests_of_the_naive_way_are_those_of_the_books():
    """Student's t for 9 degrees of freedom is 2.262; for ten against ten, U of 23 and less is beyond 95 %."""
    x = np.arange(10.0)
    error = np.sqrt(2 * x.var(ddof=1) / 10)
    assert not welch(x, x + 2.25 * error)
    assert welch(x, x + 2.27 * error)
    for shift, u in ((3.5, 21), (2.5, 28)):
        assert np.sum(x[:, None] > x + shift) == u
        assert mann_whitney(x, x + shift) == mann_whitney(x + shift, x) == (u <= 23)
    assert not mann_whitney(x, x)


@pytest.mark.parametrize("trials", [0, -3])
def test_no_trial_is_no_test(trials):
    with pytest.raises(ValueError, match=f"one trial or more, got {trials}"):
        Timer().self_test(trials=trials)


GOOD, BAD = Trial(False, True, True, True), Trial(True, False, True, True)


@pytest.mark.parametrize(("trial", "status"), [(GOOD, 0), (BAD, 1)])
def test_the_command_fails_only_where_a_promise_is_refuted(monkeypatch, capsys, trial, status):
    monkeypatch.setattr(command, "_trials", lambda timer, trials, rng, workload: iter([trial] * trials))
    assert command.main(["--quick"]) == status
    assert f"{30 * trial.more} of 30" in capsys.readouterr().out


@pytest.mark.parametrize("done", [0, 4])
def test_ctrl_c_shows_what_was_found_so_far(monkeypatch, capsys, done):
    def stops(timer, trials, rng, workload):
        yield from [GOOD] * done
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_trials", stops)
    assert command.main([]) == 130
    shown = capsys.readouterr()
    assert f"stopped after {done} of 200 trials" in shown.err
    assert ("4 of 4" in shown.out) == (done == 4)
