"""What models and kernels compute, store and execute is what the committed table says, to the last one."""

import json
import os

import pytest

numba = pytest.importorskip("numba")

from tests.regression import counted, counts, instructions  # noqa: E402

COMMITTED = counts.committed()


@pytest.fixture(scope="module")
def found():
    return counted.counts()


@pytest.mark.parametrize("row", COMMITTED["counts"])
def test_a_count_is_the_committed_one(found, row):
    if text := counts.change(row, COMMITTED["counts"], found):
        pytest.fail(text)


def test_nothing_is_counted_that_is_not_committed(found):
    assert [counts.change(row, COMMITTED["counts"], found) for row in found.keys() - COMMITTED["counts"].keys()] == []


@pytest.fixture(scope="module")
def executed():
    if missing := instructions.missing():
        if "CI" in os.environ and "needs" in missing:
            pytest.fail(f"{missing}: without them, instructions go uncounted")
        pytest.skip(missing)
    if (here := instructions.compiler()) != COMMITTED["compiler"]:
        pytest.skip(f"instructions of {COMMITTED['compiler']} are committed, this is {here}: {counts.ACCEPT}")
    return instructions.counts()


@pytest.mark.parametrize("row", COMMITTED["instructions"])
def test_a_kernel_executes_as_many_instructions_as_committed(executed, row):
    if text := counts.change(row, COMMITTED["instructions"], executed):
        pytest.fail(text)


def test_without_simd_kernels_execute_at_least_three_times_the_instructions(executed):
    scalar = instructions.counts(lanes=1)
    assert scalar.keys() == executed.keys()
    assert {name: round(scalar[name] / count, 1) for name, count in executed.items() if scalar[name] < 3 * count} == {}


def test_instructions_of_other_code_and_of_calls_are_left_out():
    profile = """events: Ir
fn=main
12 100
calls=1 0
12 900
fn=cfunc._ZN3run
0 5
cfn=_ZN3run
calls=1 0
0 60
fn=_ZN3run
+3 20
* 10
cfn=expf
calls=7 0
* 77
fn=expf
0 77
totals: 1089
"""
    assert instructions.own_instructions(profile) == 5 + 20 + 10


# The command


def test_a_change_is_named_with_both_numbers_and_how_to_accept_it():
    old, new = {"same": 1, "more": 1000, "gone": 3}, {"same": 1, "more": 1100, "new": 4}
    assert counts.changes(old, new) == [
        "more: 1,000 is committed, 1,100 is counted (+10.0%). If this is meant: " + counts.ACCEPT,
        "gone: 3 is committed, and nothing of that name is counted any more. If this is meant: " + counts.ACCEPT,
        "new: a new row, 4. If this is meant: " + counts.ACCEPT,
    ]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A table of two rows, and counts that differ in one."""
    table = tmp_path / "counts.json"
    table.write_text(json.dumps({"counts": {"a": 1, "b": 2}, "compiler": "C", "instructions": {"k": 5}}))
    monkeypatch.setattr(counts, "TABLE", table)
    monkeypatch.setattr(counted, "counts", lambda: {"a": 1, "b": 3})
    monkeypatch.setattr(instructions, "missing", lambda: "needs valgrind")
    return table


def test_checking_names_what_differs_and_writes_nothing(small, capsys):
    before = small.read_text()
    assert counts.main(["check"]) == 1
    assert capsys.readouterr().out.startswith("b: 2 is committed, 3 is counted (+50.0%)")
    assert small.read_text() == before


def test_writing_accepts_and_keeps_the_instructions_that_cannot_be_counted_here(small, capsys):
    assert counts.main(["write"]) == 0
    assert json.loads(small.read_text()) == {"counts": {"a": 1, "b": 3}, "compiler": "C", "instructions": {"k": 5}}
    assert "stay as they are: needs valgrind" in capsys.readouterr().err
    assert counts.main(["check"]) == 0
