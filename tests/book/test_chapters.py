"""What chapters promise: exercises begin unsolved and can be solved, and what is timed is also asserted."""

import re

import pytest

from tinytorch.book import notebooks
from tinytorch.book.exercise import check

SOURCES = {source.stem: source.read_text(encoding="utf-8") for source in notebooks.sources()}


def cells(text: str) -> list[str]:
    return re.findall(r"```{code-cell} python\n(.*?)```", text, re.DOTALL)


def ignored(text: str) -> list[str]:
    """Return the code cells that nbval does not compare."""
    return [cell for cell in cells(text) if "nbval-ignore-output" in cell]


def solutions(text: str) -> dict[str, str]:
    """Return the code of each folded solution by the name of the function that it writes."""
    code = re.findall(r"````{dropdown} Solution\n.*?```python\n(.*?)```", text, re.DOTALL)
    return {re.search(r"^def (\w+)", block, re.MULTILINE)[1]: block for block in code}  # type: ignore[index]


EXERCISES = [(chapter, name) for chapter, text in SOURCES.items() for name in solutions(text)]


def outcome(answer: str, question: str, capsys: pytest.CaptureFixture[str]) -> str:
    names = {"check": check}
    exec(answer + question, names)
    return capsys.readouterr().out


@pytest.mark.parametrize("chapter", SOURCES)
def test_every_chapter_has_exercises_each_with_a_stub_a_check_and_a_solution(chapter):
    text = SOURCES[chapter]
    asked = {name for cell in cells(text) for name in re.findall(r"^check\((\w+)", cell, re.MULTILINE)}
    assert asked == solutions(text).keys()
    assert len(asked) >= 3
    assert text.count("{dropdown} Solution") == len(asked)


@pytest.mark.parametrize(("chapter", "name"), EXERCISES)
def test_the_stub_is_not_yet_right_and_the_solution_is(chapter, name, capsys):
    (stub,) = (cell for cell in cells(SOURCES[chapter]) if f"def {name}(" in cell)
    (question,) = (cell for cell in cells(SOURCES[chapter]) if f"check({name}" in cell)
    if stub == question:  # the check stands below the stub
        begin = stub.index("cases = " if "cases = " in stub else "check(")
        stub, question = stub[:begin], stub[begin:]
    assert outcome(stub, question, capsys).startswith("not yet: ")
    assert outcome(solutions(SOURCES[chapter])[name], question, capsys).startswith("correct: ")


@pytest.mark.parametrize("chapter", SOURCES)
def test_every_cell_that_is_not_compared_asserts_what_it_shows(chapter):
    """But for the one that compiles the kernels."""
    without = [cell for cell in ignored(SOURCES[chapter]) if "assert " not in cell]
    assert [cell for cell in without if "warmup()" not in cell] == []
