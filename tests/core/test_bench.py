"""What `make bench` makes of its timings, on clocks that are made up: no real time is measured here."""

import contextlib
import json
import operator
import os
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import tinytorch
from tests.bench import __main__ as command
from tests.bench import launches, progress, quantized_accuracy, startup, threads, training, turns
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
    runs = {"a": command.Run(lambda rng, budget: rows, 1.0, 2.0, 1.0), "b": command.Run(stops, 1.0, 2.0, 1.0)}
    monkeypatch.setattr(command, "RUNS", runs)
    assert command.main(["--out", str(path)]) == status
    after = json.loads(path.read_text())
    assert after["a"]["rows"] == rows
    assert {run: after[run] for run in before} == before
    assert "b" in capsys.readouterr().err


def test_a_run_that_other_work_disturbed_is_named_and_the_others_are_measured(tmp_path, monkeypatch, capsys):
    def disturbed(rng, budget):
        raise command.Disturbed("the machine was busy")

    rows, path = {"x": row(median_interval(np.ones(9)), "s", "a step")}, tmp_path / "measured.json"
    runs = {"a": command.Run(disturbed, 1.0, 2.0, 1.0), "b": command.Run(lambda rng, budget: rows, 1.0, 2.0, 1.0)}
    monkeypatch.setattr(command, "RUNS", runs)
    assert command.main(["--out", str(path)]) == 1
    assert json.loads(path.read_text()).keys() == {"b"}
    assert "a is not measured: the machine was busy" in capsys.readouterr().out


def test_without_the_peers_their_rows_are_named_and_skipped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "_has_peers", lambda: False)
    monkeypatch.setattr(command, "RUNS", {"peer": command.Run(pytest.fail, 1.0, 2.0, 1.0, True)})
    assert command.main(["--out", str(tmp_path / "measured.json")]) == 0
    assert "not measured: peer" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_trial_is_shorter_and_publishes_nothing(tmp_path, monkeypatch, capsys):
    spent, path = [], tmp_path / "measured.json"
    rows = {"x": row(median_interval(np.ones(9)), "s", "a step")}

    def measure(rng, budget):
        spent.append(budget)
        return rows

    monkeypatch.setattr(command, "RUNS", {"a": command.Run(measure, 100.0, 120.0, 9.0)})
    monkeypatch.setattr(command, "MEASURED", path)
    assert command.main(["--quick"]) == 0
    assert not path.exists()
    assert "a step" in capsys.readouterr().out
    assert command.main([]) == 0
    assert path.exists()
    assert spent == [1.0, 100.0]


def test_all_runs_leave_time_for_the_notebooks_within_20_minutes_and_a_trial_takes_3():
    assert sum(run.takes for run in command.RUNS.values()) <= 18 * 60
    assert sum(run.tried for run in command.RUNS.values()) <= 3 * 60


def test_one_bar_goes_through_all_runs_and_stops_at_one_that_fails(capsys):
    bar = progress.Progress({"a": 2.0, "b": 6.0, "c": 2.0})
    with bar.run("a"):
        pass
    assert bar._bar.n == 2.0
    with pytest.raises(KeyboardInterrupt), bar.run("b"):
        raise KeyboardInterrupt
    assert 2.0 <= bar._bar.n < 8.0
    with bar.run("c"):
        pass
    assert bar._bar.n == 10.0
    bar.print("a table")
    bar.close()
    said = capsys.readouterr()
    assert said.out == "a table\n"
    assert "[2/3] b" in said.err
    assert "left" in said.err


def test_turns_of_many_threads_have_a_pause_before_them(machine, monkeypatch):
    pauses = []

    def sleep(seconds):
        pauses.append(machine.now)
        machine.now += seconds

    monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=machine.clock, sleep=sleep))
    functions = [machine.function(0.001), machine.function(0.03)]
    times = threads.Threads(2).rounds(functions, np.random.default_rng(0), 1.0)
    assert len(pauses) == times.size
    assert np.diff(pauses).min() >= threads.PAUSE + 0.02
    assert turns.ratio(times, 1, 0) == pytest.approx(30.0, rel=1e-3)
    assert (threads.ONE.suffix, threads.ONE.words) == ("", "")
    assert (threads.Threads(2).suffix, threads.Threads(2).words) == ("_threads", ", 2 threads")


@pytest.mark.parametrize("fails", [False, True])
def test_all_threads_end_with_their_block(monkeypatch, fails):
    counts = [1]
    torch = SimpleNamespace(get_num_threads=lambda: counts[-1], set_num_threads=counts.append)
    monkeypatch.setitem(sys.modules, "torch", torch)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(RuntimeError), threads.all_threads() as all_:
        assert (all_.count, tinytorch.get_num_threads(), counts[-1]) == (cores, cores, cores)
        if fails:
            raise RuntimeError
    assert (tinytorch.get_num_threads(), counts[-1]) == (1, 1)


def test_accuracies_are_found_side_by_side_in_the_order_of_seeds():
    trials = {"double": partial(operator.mul, 2), "square": partial(pow, exp=2)}
    assert quantized_accuracy.on_all_cores(trials, 3) == {"double": [0, 2, 4], "square": [0, 1, 4]}


@pytest.mark.parametrize(
    ("values", "word"), [([1.1, 1.2, 1.3], "reached"), ([0.7, 0.8, 0.9], "missed"), ([0.9, 1.1, 1.2], "undecided")]
)
def test_several_launches_give_their_median_and_reach_an_aim_only_all_together(values, word):
    found = launches.joined(values, launches.Wanted("a product", "x", 1.0))
    assert (found["value"], found["low"], found["high"]) == (values[1], values[0], values[2])
    assert found["what"] == f"a product (aim at least 1: {word})"
    opposite = {"reached": "missed", "missed": "reached"}.get(word, word)
    most = launches.joined(values, launches.Wanted("a step", "x", most=1.0))
    assert most["what"] == f"a step (aim at most 1: {opposite})"


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


def test_a_trial_has_one_launch(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "a_launch.py").write_text(
        'import json, os; print(json.dumps({"pid": [os.getpid(), "process", "", None, None]}))'
    )
    (found,) = launches.over_launches("a_launch", np.random.default_rng(0), budget=5.0).values()
    assert found["low"] == found["high"]


def test_a_launch_that_fails_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "broken_launch.py").write_text("raise SystemExit(3)")
    with pytest.raises(AssertionError, match=r"broken_launch .* ended with 3"):
        launches.over_launches("broken_launch", np.random.default_rng(0), budget=10.0)
