"""The statistics behind `make bench`, on clocks that are made up: no real time is read here."""

import json
from functools import partial

import numpy as np
import pytest

from tests.bench import __main__ as command
from tests.bench import launches
from tests.bench.interleave import compare, measure, median_interval
from tests.bench.training import row, verdict
from tinytorch.book import results


class FakeMachine:
    """A clock, and functions that let it run on, at a pace that drifts and stumbles as a shared machine's does."""

    def __init__(self, rng, noise=0.05):
        self.now, self.rng, self.noise, self.calls = 0.0, rng, noise, []

    def clock(self):
        return self.now

    def function(self, name, seconds):
        def call():
            self.calls.append(name)
            pace = 1.0 + 0.5 * np.sin(self.now / 7.0)  # slow neighbours come and go
            stumble = 3.0 if self.rng.random() < 0.005 else 1.0
            self.now += seconds * pace * stumble * np.exp(self.noise * self.rng.normal())

        return call


def compared(a, b, seed, check=lambda: None, budget=3.0):
    rng = np.random.default_rng(seed)
    machine = FakeMachine(rng)
    sides = machine.function("a", a), machine.function("b", b)
    return compare(*sides, rng, check=check, budget=budget, block=0.02, clock=machine.clock)


@pytest.mark.parametrize("n", [6, 9, 20, 101])
def test_the_interval_covers_the_true_median_at_least_95_times_in_100(n):
    rng = np.random.default_rng(n)
    skewed = np.exp(rng.normal(size=(4000, n)))  # true median 1, mean 1.65
    intervals = [median_interval(samples) for samples in skewed]
    assert np.mean([e.low <= 1.0 <= e.high for e in intervals]) > 0.94
    assert all(e.low <= e.value <= e.high for e in intervals)


def test_the_interval_of_known_numbers_is_that_of_the_tables():
    """Ten samples: the second smallest and the second largest (David & Nagaraja, 97.9 %)."""
    e = median_interval([3, 1, 2, 10, 9, 8, 4, 7, 6, 5])
    assert (e.low, e.value, e.high, e.spread) == (2, 5.5, 9, 4.5 / 5.5)


@pytest.mark.parametrize("samples", [[], [1.0], [1.0] * 5])
def test_too_few_samples_are_no_interval(samples):
    with pytest.raises(ValueError, match=f"{len(samples)} samples are too few"):
        median_interval(samples)


@pytest.mark.parametrize("ratio", [0.5, 0.97, 1.05, 3.0])
def test_a_known_ratio_is_recovered_on_a_machine_whose_pace_drifts(ratio):
    results = [compared(0.01 * ratio, 0.01, seed, budget=10.0) for seed in range(40)]
    assert np.mean([r.ratio.low <= ratio <= r.ratio.high for r in results]) >= 0.85
    assert np.median([r.ratio.value for r in results]) == pytest.approx(ratio, rel=0.01)
    assert np.mean([r.differs for r in results]) > 0.5


def test_the_same_function_twice_is_not_called_different():
    assert np.mean([compared(0.01, 0.01, seed).differs for seed in range(300)]) < 0.05


def test_less_than_one_percent_is_no_claim_however_sure():
    machine = FakeMachine(np.random.default_rng(0), noise=0.0)

    def call(seconds):
        machine.now += seconds

    a, b = partial(call, 1.005), partial(call, 1.0)
    result = compare(a, b, np.random.default_rng(1), check=lambda: None, clock=machine.clock)
    assert result.ratio.low > 1.0
    assert not result.differs
    assert str(result).startswith("no difference")


def test_what_differs_is_not_timed():
    def check():
        raise AssertionError("they differ")

    machine = FakeMachine(np.random.default_rng(0))
    a = machine.function("a", 1.0)
    with pytest.raises(AssertionError, match="they differ"):
        compare(a, a, machine.rng, check=check, clock=machine.clock)
    assert machine.calls == []


def test_short_functions_are_called_until_a_block_is_full_and_the_order_is_random():
    machine = FakeMachine(np.random.default_rng(0), noise=0.0)
    quick, slow = machine.function("a", 0.0005), machine.function("b", 0.05)
    times = measure([quick, slow], np.random.default_rng(0), budget=5.0, block=0.02, clock=machine.clock)
    text = "".join(machine.calls)
    blocks = [block for block in text.split("b") if block]
    assert min(len(block) for block in blocks[2:]) >= 20
    assert {"bb", "aab"} <= {text[i : i + k] for i in range(len(text)) for k in (2, 3)}  # both orders occur
    assert len(times) == pytest.approx(5.0 / 0.07, rel=0.8)


def test_an_aim_is_reached_or_missed_only_with_the_whole_interval():
    estimates = {name: median_interval(np.full(9, x)) for name, x in (("reached", 1.4), ("missed", 1.6))}
    estimates["undecided"] = median_interval(np.linspace(1.2, 1.8, 9))
    assert {name: verdict(e, 1.5) for name, e in estimates.items()} == {name: name for name in estimates}


def test_a_measured_row_is_one_that_the_book_can_publish(tmp_path):
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"14_other": {"command": "x", "date": "2026-01-31", "machine": {}, "rows": {}}}))
    rows = {"ratio": row(median_interval(np.linspace(1.0, 2.0, 11)), "x", "a step (aim at most 1.5: undecided)")}
    results.record("training_cnn", "make bench", rows, path)
    assert str(results.rows(path, cards=tmp_path / "none")["training_cnn/ratio"]) == "1.5 x"
    assert "14_other" in json.loads(path.read_text())
    assert "undecided" in command.table("training_cnn", rows)


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (AssertionError("they differ"), 1)])
def test_a_run_that_stops_loses_neither_what_was_measured_nor_what_was_known(
    tmp_path, monkeypatch, capsys, error, status
):
    def stops(rng, budget):
        raise error

    path, rows = tmp_path / "measured.json", {"x": row(median_interval(np.ones(9)), "s", "a step")}
    for known in ("b", "other"):
        results.record(known, "before", rows, path)
    before = json.loads(path.read_text())
    monkeypatch.setattr(command, "RUNS", {"a": (lambda rng, budget: rows, 1.0, False), "b": (stops, 1.0, False)})
    assert command.main(["--out", str(path)]) == status
    after = json.loads(path.read_text())
    assert after["a"]["rows"] == rows
    assert {run: after[run] for run in before} == before
    assert "b" in capsys.readouterr().err


def test_without_the_peers_their_rows_are_named_and_skipped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "_has_peers", lambda: False)
    monkeypatch.setattr(command, "RUNS", {"peer": (pytest.fail, 1.0, True)})
    assert command.main(["--out", str(tmp_path / "measured.json")]) == 0
    assert "not measured: peer" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "word"), [([1.1, 1.2, 1.3], "reached"), ([0.7, 0.8, 0.9], "missed"), ([0.9, 1.1, 1.2], "undecided")]
)
def test_several_launches_give_their_median_and_reach_an_aim_only_all_together(values, word):
    found = launches.joined(values, launches.Wanted("a product", "x", 1.0))
    assert (found["value"], found["low"], found["high"]) == (values[1], values[0], values[2])
    assert found["what"] == f"a product (aim at least 1: {word})"


def test_every_launch_is_a_process_of_its_own_with_another_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "one_launch.py").write_text(
        "import json, os, sys\n"
        "assert float(sys.argv[2]) == 2.0\n"
        'rows = {"pid": [os.getpid() % 997, "process", "", None], "seed": [int(sys.argv[1]), "seed", "", 0]}\n'
        "print(json.dumps(rows))\n"
    )
    rows = launches.over_launches("one_launch", np.random.default_rng(0), budget=10.0)
    assert rows["pid"]["low"] < rows["pid"]["high"]
    assert rows["seed"]["low"] < rows["seed"]["value"] < rows["seed"]["high"]


def test_a_launch_that_fails_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "broken_launch.py").write_text("raise SystemExit(3)")
    with pytest.raises(AssertionError, match=r"broken_launch .* ended with 3"):
        launches.over_launches("broken_launch", np.random.default_rng(0), budget=10.0)
