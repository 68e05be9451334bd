"""What the chapter leaves to the reader: each exercise begins unsolved, and its folded solution passes its check."""

import re
from pathlib import Path

import pytest

from tinytorch.book.exercise import check

SOURCE = (Path(__file__).parents[2] / "chapters/14_transformers/transformers.md").read_text(encoding="utf-8")
EXERCISES = SOURCE[SOURCE.index("## Exercises") :]
STUBS = re.findall(r"```{code-cell} python\n(def .*?)```", EXERCISES, re.DOTALL)
CHECKS = re.findall(r"```{code-cell} python\n((?:cases = )?[^`]*?check\(.*?)```", EXERCISES, re.DOTALL)
SOLUTIONS = re.findall(r"```python\n(def .*?)```", EXERCISES, re.DOTALL)


def outcome(answer: str, question: str, capsys: pytest.CaptureFixture[str]) -> str:
    names = {"check": check}
    exec(answer + question, names)
    return capsys.readouterr().out


def test_every_exercise_has_a_stub_a_check_and_a_solution():
    assert len(STUBS) == len(CHECKS) == len(SOLUTIONS) >= 3


@pytest.mark.parametrize("number", range(len(STUBS)))
def test_the_stub_is_not_yet_right_and_the_solution_is(number, capsys):
    assert outcome(STUBS[number], CHECKS[number], capsys).startswith("not yet: ")
    assert outcome(SOLUTIONS[number], CHECKS[number], capsys).startswith("correct: ")
