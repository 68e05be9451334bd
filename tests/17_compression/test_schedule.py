"""Sparsity grows as the schedule says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.compression import GradualSchedule, OneShot

shares = st.floats(0, 0.99)


def test_one_shot_prunes_before_the_first_step_and_never_again():
    schedule = OneShot()
    assert [schedule.is_due(step) for step in range(3)] == [True, False, False]
    assert schedule.at(0, 0.9) == 0.9


def test_the_cubic_schedule_is_that_of_the_paper():
    """s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3, equation 1: begin at 100, 4 times 50 steps."""
    schedule = GradualSchedule(begin=100, end=300, every=50, initial=0.1)
    due = [step for step in range(400) if schedule.is_due(step)]
    assert due == [100, 150, 200, 250, 300]
    expected = [0.9 + (0.1 - 0.9) * (1 - n / 4) ** 3 for n in range(5)]
    assert [schedule.at(step, 0.9) for step in due] == pytest.approx(expected)


@given(st.integers(0, 50), st.integers(1, 200), st.integers(1, 60), shares)
def test_a_gradual_schedule_ends_where_it_should_and_never_goes_back(begin, length, every, final):
    schedule = GradualSchedule(begin, begin + length, every)
    values = [schedule.at(step, final) for step in range(begin + length + 5)]
    assert values == sorted(values)
    assert values[begin] == 0
    assert values[begin + length :] == [final] * 5
    assert schedule.is_due(begin)
    assert schedule.is_due(begin + length)
    assert not schedule.is_due(begin + length + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 5), "end after that, got 5 to 5"),
        ((-1, 5), "got -1 to 5"),
        ((0, 5, 0), "not every 0"),
        ((0, 5, 1, 1.0), "initial sparsity"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GradualSchedule(*arguments)
