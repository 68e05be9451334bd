"""The break-even: found by timing both forms in turns, kept for this machine, and used where layers are chosen."""

import itertools
import json

import pytest

from tinytorch import backend
from tinytorch.compression import break_even, measure_break_even
from tinytorch.compression.sparse_or_dense import BreakEven, crossing
from tinytorch.kernels.backend import compiled
from tinytorch.kernels.machine import cpu_name

STOPS = (0.0, 0.2, 0.4, 0.6)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.5, 0.8, 1.2, 1.5], 0.3),
        ([0.5, 1.1, 0.9, 1.1], 0.5),  # noise on the way: from where on for good
        ([1.1, 1.2, 1.3, 1.4], 0.0),
        ([0.5, 0.6, 0.7, 0.8], 0.6),
        ([0.5, 0.6, 0.7, 1.0], 0.6),
    ],
)
def test_the_crossing_is_where_the_ratio_rises_to_one_for_good(ratios, expected):
    assert crossing(STOPS, ratios) == pytest.approx(expected)


def test_a_clock_that_always_says_sparse_is_slower_leaves_the_last_stop():
    ticks = itertools.cycle([0.0, 3.0, 4.0])  # sparse takes three, dense one
    assert measure_break_even(lambda: next(ticks)) == BreakEven(0.8, 0.8)
    ticks = itertools.cycle([0.0, 1.0, 4.0])
    assert measure_break_even(lambda: next(ticks)) == BreakEven(0.0, 0.0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled("jit"), "cache_folder", lambda: tmp_path)
    calls = []
    monkeypatch.setattr(
        "tinytorch.compression.sparse_or_dense.measure_break_even", lambda: calls.append(1) or BreakEven(0.25, 0.5)
    )
    return tmp_path, calls


def test_it_is_measured_once_and_kept_by_the_processors_name(folder):
    path, calls = folder
    assert break_even() == break_even() == BreakEven(0.25, 0.5)
    assert len(calls) == 1
    kept = json.loads((path / "break_even.json").read_text())
    assert kept == {cpu_name(): {"linear": 0.25, "convolution": 0.5}}


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"a": 3}', '{"a": {"linear": 0.5}}', '{"a": {"wrong": 1}}'])
def test_a_damaged_file_is_measured_anew(folder, text):
    path, calls = folder
    (path / "break_even.json").write_text(text)
    assert break_even() == BreakEven(0.25, 0.5)
    assert len(calls) == 1
    json.loads((path / "break_even.json").read_text())


def test_another_processors_number_is_kept_beside_ones_own(folder):
    path, _ = folder
    (path / "break_even.json").write_text('{"another": {"linear": 0.1, "convolution": 0.2}}')
    break_even()
    assert json.loads((path / "break_even.json").read_text()).keys() == {"another", cpu_name()}


def test_without_numba_everything_is_sparse(folder):
    with backend("numpy"):
        assert break_even() == BreakEven(0.0, 0.0)
    assert not folder[1]
