"""What `make bench` makes of its timings, on clocks that are made up: no real time is measured here."""

import json
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from tests.bench import __main__ as command
from tests.bench import launches, startup, training, turns
from tests.bench import timer as bench_timer
from tests.bench.training import row, verdict
from tinytorch.book import results
from tinytorch.profiling.self_test import SelfTest
from tinytorch.profiling.timing.statistics import Rate, median_interval
from tinytorch.profiling.timing.timer import Timer


class Machine:
    """A clock that only the functions move."""

    def __init__(self):
        self.now = 0.0

    def clock(self):
        self.now += 1e-7
        return self.now

    def function(self, seconds):
        def call():
            self.now += seconds

        return call


@pytest.fixture
def machine(monkeypatch):
    made_up = Machine()
    monkeypatch.setattr(turns, "Timer", partial(Timer, clock=made_up.clock))
    return made_up


def test_rounds_have_turns_of_20_ms_and_ratios_of_any_two(machine):
    calls = 0
    quick = machine.function(0.001)

    def counted():
        nonlocal calls
        calls += 1
        quick()

    times = turns.timer(np.random.default_rng(0), 1.0).rounds([counted, machine.function(0.03)])
    assert calls >= 20 * len(times)
    assert turns.ratio(times, 0, 1) == pytest.approx(1 / 30)
    assert turns.ratio(times, 1, 0) == pytest.approx(30.0)


def test_the_ratio_of_training_is_our_time_over_the_peers(machine, monkeypatch):
    ours, theirs = machine.function(0.03), machine.function(0.02)
    checked = []
    task = SimpleNamespace(steps=lambda: (ours, theirs), check=lambda: checked.append(True), batches=[None] * 10)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__version__="2.0+cpu"))
    monkeypatch.setattr(training, "gpt_task", lambda rng: task)
    monkeypatch.setattr(training, "cnn_task", lambda rng: task)
    rng = np.random.default_rng(0)
    gpt, cnn = training.training_gpt(rng, 2.0), training.training_cnn(rng, 2.0)
    assert {name: row["value"] for name, row in gpt.items()} == {"ratio": 1.5, "step": 30.0, "step_torch": 20.0}
    assert {name: row["value"] for name, row in cnn.items()} == {"ratio": 1.5, "epoch": 0.3, "epoch_torch": 0.2}
    assert "aim at most 1: missed" in gpt["ratio"]["what"]
    assert checked == [True, True]


def test_the_import_is_timed_beyond_an_empty_interpreter(machine, monkeypatch):
    monkeypatch.setattr(startup, "_run", lambda code: machine.function(0.5 if code else 0.2)())
    assert startup.startup(np.random.default_rng(0), 2.0)["seconds"]["value"] == 0.3


def test_the_self_test_is_published_as_rates_with_intervals_and_verdicts(monkeypatch):
    result = SelfTest(Rate(0, 120), Rate(120, 120), Rate(36, 120), Rate(60, 120))
    monkeypatch.setattr(Timer, "self_test", lambda timer, trials, rng: result if trials == 120 else None)
    rows = bench_timer.timer_19(np.random.default_rng(0), 90.0)
    values = {name: row["value"] for name, row in rows.items() if row["unit"] == "%"}
    naive = {"false_positives_naive": 30, "false_positives_naive_ranks": 50}
    assert values == {"false_positives": 0, "found": 100, **naive}
    assert 20 < rows["false_positives_naive"]["low"] < 30 < rows["false_positives_naive"]["high"] < 40
    assert "aim at most 5: reached" in rows["false_positives"]["what"]
    assert "aim at least 90: reached" in rows["found"]["what"]
    assert rows["clock"]["value"] > 0
    assert rows["loop"]["value"] >= 0


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
