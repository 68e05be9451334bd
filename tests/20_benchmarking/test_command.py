"""The command, as people use it: from a model to a place on the leaderboard, and every mistake in one line."""

import csv
import importlib
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from tinytorch.benchmarks.tinymlperf.command import app
from tinytorch.benchmarks.tinymlperf.leaderboard import Leaderboard
from tinytorch.benchmarks.tinymlperf.results import Result
from tinytorch.benchmarks.tinymlperf.submission import Submission
from tinytorch.benchmarks.tinymlperf.suite import BenchmarkSuite
from tinytorch.benchmarks.tinymlperf.web import create_app

runner = CliRunner()


def run(*argv: object, **env: str):
    return runner.invoke(app, [str(a) for a in argv], env={"COLUMNS": "120", "NO_COLOR": "1", **env})


@pytest.fixture
def board(tmp_path):
    return f"sqlite:///{tmp_path / 'board.db'}"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sub.safetensors"
    assert run("export", "reference_cnn", "-o", path, "--bits", 8).exit_code == 0
    return path


def test_a_competition_in_five_commands(board, file, tmp_path):
    assert run("init", "--deadline", "2999-12-31T23:59:59", "--board", board).exit_code == 0
    joined = run("join", "--count", 2, "--board", board)
    (first, _) = csv.DictReader(io.StringIO(joined.stdout))
    for _ in range(2):  # the second time nothing changes
        handed_in = run("submit", file, "--board", board, TINYMLPERF_TOKEN=first["token"])
        assert handed_in.exit_code == 0
        assert "submission 1" in handed_in.stdout
        assert "9 left today" in handed_in.stdout
    evaluated = run("evaluate", "--seconds", 0.2, "--launches", 1, "--tolerance", 1000, "--board", board)
    assert "submission 1: image-classification, score" in evaluated.stdout
    shown = run("leaderboard", "--task", "image-classification", "--board", board)
    assert first["pseudonym"] in shown.stdout
    table = list(csv.DictReader(io.StringIO(run("leaderboard", "--csv", "--board", board).stdout)))
    assert [row["participant"] for row in table] == [first["pseudonym"]]


def test_check_says_what_a_file_costs(file):
    found = run("check", file)
    submission = Submission.open(file)
    assert found.exit_code == 0
    assert f"{submission.stored_bytes:,} bytes stored, {submission.costs.flops:,} operations" in found.stdout


def test_run_measures_here_and_writes_what_is_asked_for(file, monkeypatch):
    how = "--seconds", 0.1, "--launches", 1, "--tolerance", 1000, "--seed", 1
    first = run("run", file, *how, "--format", "json")
    assert first.exit_code == 0
    assert json.loads(first.stdout)["passed"] is True
    known = Result.from_json(first.stdout)
    monkeypatch.setattr(BenchmarkSuite, "evaluate", lambda self, path: known)
    for form, part in (("table", "stored bytes"), ("markdown", "| score |"), ("svg", "<svg")):
        assert part in run("run", file, "--format", form).stdout


def test_run_says_that_a_target_is_missed(tmp_path):
    path = tmp_path / "sub.safetensors"
    run("export", "reference_cnn", "-o", path, "--filters", 0.9)
    found = run("run", path, "--seconds", 0.1, "--launches", 1, "--tolerance", 1000, "--seed", 1, "--format", "json")
    assert found.exit_code == 1
    assert "misses the target" in found.stderr


@pytest.mark.parametrize(
    "options",
    [["--filters", 0.5], ["--sparsity", 0.8], ["--energy", 0.8], ["--bits", 4], ["--filters", 0.3, "--bits", 8]],
)
def test_models_are_made_smaller_on_the_way(tmp_path, options):
    plain, small = tmp_path / "plain.safetensors", tmp_path / "small.safetensors"
    run("export", "reference_cnn", "-o", plain)
    assert run("export", "reference_cnn", "-o", small, *options).exit_code == 0
    assert Submission.open(small).stored_bytes < Submission.open(plain).stored_bytes or options == ["--energy", 0.8]


MISTAKES = {
    "no such model": (["export", "resnet", "-o", "x"], 2, "no model 'resnet'"),
    "no such task": (["export", "reference_cnn", "-o", "x", "--task", "speech"], 2, "no task 'speech'"),
    "a GPT made smaller": (["export", "char_gpt", "-o", "x", "--filters", "0.5"], 2, "has no filters"),
    "no file": (["check", "nowhere.safetensors"], 1, "not-a-file"),
    "no format": (["run", "nowhere.safetensors", "--format", "pdf"], 2, "choose table, json"),
    "no competition": (["leaderboard"], 1, "create it first"),
    "a deadline that is over": (["init", "--deadline", "2001-01-01T00:00:00"], 2, "is over"),
    "no database": (["leaderboard", "--board", "mysql://x/y"], 2, "mysql"),
    "no server": (["submit", "FILE", "--token", "x", "--server", "ftp://x"], 2, "no address"),
    "nobody there": (["submit", "FILE", "--token", "x", "--server", "http://127.0.0.1:9"], 2, "cannot be reached"),
}


@pytest.mark.parametrize(("argv", "status", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_said_in_one_line(file, board, argv, status, message):
    argv = [str(file) if a == "FILE" else a for a in argv]
    if argv[0] in ("leaderboard", "init") and "--board" not in argv:
        argv += ["--board", board]
    found = run(*argv)
    assert found.exit_code == status
    assert found.stderr.startswith("error: ")
    assert found.stderr.count("\n") == 1
    assert message in found.stderr
    assert "Traceback" not in found.output


def test_a_file_is_handed_in_over_the_network_and_refusals_come_back(board, file):
    serving = importlib.import_module("tests.20_benchmarking.serving")
    opened = Leaderboard(board)
    now = datetime.now(UTC)
    opened.create_competition(tasks=["image-classification"], deadline=now + timedelta(1), daily_quota=3, now=now)
    token = opened.add_participant("ada", now=now).token
    with serving.served(create_app(opened, check=lambda path: None)) as origin:
        first = run("submit", file, "--server", origin, TINYMLPERF_TOKEN=token)
        assert first.stdout == "submission 1: queued; 2 left today\n"
        refused = run("submit", file, "--server", origin, TINYMLPERF_TOKEN="x" * 43)
        assert refused.exit_code == 2
        assert refused.stderr == (
            "error: unknown-token: this is no participant's token: copy all 43 characters of it\n"
        )
    opened.close()
