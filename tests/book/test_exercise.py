"""`check` says "correct" for right answers only, and explains every other one without raising."""

import numpy as np
import pytest

from tinytorch.book.exercise import check


def said(answer, expected, capsys):
    check(answer, expected)
    return capsys.readouterr().out


def test_a_right_answer_is_correct(capsys):
    assert said(lambda n: n * n, {(2,): 4, (3,): 9}, capsys) == "correct: 2 of 2 cases\n"


def test_arrays_are_compared_element_by_element(capsys):
    assert said(np.arange, {(3,): np.array([0, 1, 2])}, capsys).startswith("correct")
    assert said(np.zeros, {(3,): np.array([0, 1, 2])}, capsys).startswith("not yet")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda n: n, "should be 4, not 2"),
        (lambda n: ..., "still ..."),
        (lambda n: None, "not None"),
        (lambda n: 1 / 0, "ZeroDivisionError"),
        (lambda: 4, "TypeError"),
    ],
)
def test_a_wrong_answer_is_explained(answer, reason, capsys):
    out = said(answer, {(2,): 4}, capsys)
    assert out.startswith("not yet: ")
    assert reason in out
