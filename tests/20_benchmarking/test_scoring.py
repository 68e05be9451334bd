"""What a score rewards, and what it cannot be made to reward."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.benchmarks.tinymlperf.scoring import FLOOR, REFERENCE, WEIGHTS, Ratios, score
from tinytorch.profiling.timing.statistics import Estimate

TASKS = ("anomaly", "images", "language")
COSTS = st.floats(1e-6, 1e6)


@st.composite
def ratios(draw, passed=None):
    low, value, high = sorted(draw(st.tuples(COSTS, COSTS, COSTS)))
    return Ratios(
        Estimate(value, low, high),
        draw(COSTS),
        draw(COSTS),
        draw(COSTS),
        draw(st.booleans() if passed is None else passed),
    )


RESULTS = st.dictionaries(st.sampled_from(TASKS), st.none() | ratios())


def same(x: float) -> Ratios:
    return Ratios(Estimate(x, x, x), x, x, x)


def test_the_weights_add_up_to_one():
    assert math.fsum(WEIGHTS.values()) == 1


@pytest.mark.parametrize("x", [1.0, 0.25, 7.0])
def test_who_is_x_times_as_good_in_everything_has_x_times_the_score(x):
    found = score(dict.fromkeys(TASKS, same(x)), TASKS)
    assert found.score.value == pytest.approx(REFERENCE * x, rel=1e-12)
    assert found.deterministic == round(REFERENCE * math.sqrt(x), 2)


def test_the_formula_of_one_task_by_hand():
    found = score({"images": Ratios(Estimate(4.0, 2.0, 8.0), 3.0, 5.0, 0.5)}, ["images"])
    counted = 3.0**0.2 * 5.0**0.15 * 0.5**0.15
    assert found.score.value == pytest.approx(1000 * 2.0 * counted)
    assert (found.score.low, found.score.high) == pytest.approx((1000 * 2**0.5 * counted, 1000 * 8**0.5 * counted))
    assert found.deterministic == pytest.approx(1000 * counted, abs=0.005)


@given(RESULTS)
def test_nothing_is_below_the_floor_or_above_the_limit(results):
    found = score(results, TASKS)
    bounds = REFERENCE * FLOOR * (1 - 1e-12), REFERENCE / FLOOR * (1 + 1e-12)
    assert bounds[0] <= found.score.low <= found.score.value <= found.score.high <= bounds[1]


@given(RESULTS, st.sampled_from(TASKS))
def test_leaving_a_task_out_or_failing_it_never_pays(results, task):
    without = score({name: r for name, r in results.items() if name != task}, TASKS)
    with_it = score(results, TASKS)
    assert with_it.score.value >= without.score.value * (1 - 1e-12)
    assert with_it.deterministic >= without.deterministic


@given(ratios(st.just(True)), st.sampled_from(["flops", "bytes", "activation"]), st.floats(1.0, 10.0))
def test_a_lower_cost_is_never_punished(found, name, factor):
    better = Ratios(**(vars(found) | {name: getattr(found, name) * factor}))
    assert score({"images": better}, TASKS).score.value >= score({"images": found}, TASKS).score.value * (1 - 1e-12)


@given(RESULTS, st.floats(0.01, 100.0))
def test_the_deterministic_score_does_not_know_the_time(results, factor):
    def slower(r):
        return r and Ratios(r.speedup.scaled(factor), r.flops, r.bytes, r.activation, r.passed)

    changed = score({name: slower(r) for name, r in results.items()}, TASKS)
    assert changed.deterministic == score(results, TASKS).deterministic


def test_one_thing_alone_cannot_win_everything():
    """A file of no bytes gains what a speed-up of 2.8 gains, and no more."""
    found = score({"images": Ratios(Estimate(1.0, 1.0, 1.0), 1.0, 1e9, 1.0)}, ["images"])
    assert found.score.value == pytest.approx(1000 * 32**0.15)
    assert 32**0.15 < 2.9**0.5


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["flops", "bytes", "activation", "speedup"])
def test_what_is_no_ratio_is_refused(name, bad):
    values = vars(same(1.0)) | {name: Estimate(bad, bad, bad) if name == "speedup" else bad}
    with pytest.raises(ValueError, match=name):
        Ratios(**values)


def test_an_interval_that_does_not_hold_its_value_is_refused():
    with pytest.raises(ValueError, match="does not lie"):
        Ratios(Estimate(1.0, 2.0, 3.0), 1, 1, 1)


def test_results_of_other_tasks_and_no_tasks_are_refused():
    with pytest.raises(ValueError, match=r"speech.*images"):
        score({"speech": same(1.0)}, ["images"])
    with pytest.raises(ValueError, match="there are none"):
        score({}, [])
