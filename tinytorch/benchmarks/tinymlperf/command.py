"""The command `tinymlperf`: for who takes part, export, check, run, submit; for who organizes, the rest."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from tinytorch.benchmarks.tinymlperf.clock import now
from tinytorch.benchmarks.tinymlperf.rejection import Rejected

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Board = Annotated[str, typer.Option(envvar="TINYMLPERF_BOARD", help="sqlite:///FILE or postgresql+psycopg://...")]
Files = Annotated[Path | None, typer.Option(help="folder of submitted files, for PostgreSQL")]
Submitted = Annotated[Path, typer.Argument(metavar="FILE", help="a submission, .safetensors")]
BOARD = "sqlite:///tinymlperf.db"


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what was refused into one line and a status: 1 refused, 2 wrong call, 3 try again, 130 Ctrl-C."""
    from tinytorch.benchmarks.tinymlperf.leaderboard.refusal import Refused
    from tinytorch.benchmarks.tinymlperf.suite import Disturbed

    try:
        yield
    except typer.Exit:  # said already
        raise
    except (Rejected, Refused) as error:
        _fail(f"{error}", 1)
    except Disturbed as error:
        _fail(f"disturbed: {error}", 3)
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        _fail(f"{error.args[0] if isinstance(error, KeyError) else error}", 2)
    except KeyboardInterrupt:
        _fail("stopped", 130)


def _fail(message: str, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(status)


@contextmanager
def _board(url: str, files: Path | None) -> Iterator[Any]:
    from tinytorch.benchmarks.tinymlperf.leaderboard import Leaderboard

    board = Leaderboard(url, files=files)
    try:
        yield board
    finally:
        board.close()


# For who takes part


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="of the zoo, or MODULE:FACTORY, a function that returns a model")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the file to write")],
    task: Annotated[str | None, typer.Option(help="that of the model, if it is of the zoo")] = None,
    filters: Annotated[float | None, typer.Option(help="share of each convolution's filters to remove")] = None,
    sparsity: Annotated[float | None, typer.Option(help="share of weights to set to zero, without training on")] = None,
    energy: Annotated[float | None, typer.Option(help="share of squares that thin linear layers keep")] = None,
    bits: Annotated[int | None, typer.Option(help="of weights, for whole numbers; activations have 8")] = None,
    cache: Annotated[str, typer.Option(help="of attention: none, float32, int8 or window")] = "float32",
    division: Annotated[str, typer.Option(help="closed or open")] = "closed",
) -> None:
    """Write a model as a submission, made smaller on the way if you like."""
    with _explained():
        from tinytorch.benchmarks.tinymlperf.export import export as exported
        from tinytorch.benchmarks.tinymlperf.making import made

        whole, of_task = made(model, task, filters, sparsity, energy, bits)
        path = exported(whole, of_task, division=division, cache=cache).save(out)
        print(path)


@app.command()
def check(file: Submitted) -> None:
    """Look whether a file would be taken, and what it costs; a code and status 1 if it would not."""
    with _explained():
        from tinytorch.benchmarks.tinymlperf.submission import Submission

        found = Submission.open(file)
        print(f"{file.name}: {found.task}, {found.division} division, {len(found.graph.nodes)} nodes")
        print(f"{found.stored_bytes:,} bytes stored, {found.costs.flops:,} operations a sample,", end=" ")
        print(f"{found.costs.peak_activation_bytes:,} bytes of activations at the peak")


@app.command()
def run(
    file: Submitted,
    seconds: Annotated[float, typer.Option(help="for each scenario")] = 10.0,
    launches: Annotated[int, typer.Option(help="of the processes; the median one counts")] = 5,
    tolerance: Annotated[float, typer.Option(help="how much longer the reference may take than alone")] = 1.5,
    seed: Annotated[int | None, typer.Option(help="of samples and order; a new one by default")] = None,
    form: Annotated[str, typer.Option("--format", help="table, json, markdown or svg")] = "table",
) -> None:
    """Measure a file here, beside the reference, as the organizer will; status 1 if it misses its target."""
    with _explained():
        from tinytorch.benchmarks.tinymlperf.plot import scatter
        from tinytorch.benchmarks.tinymlperf.suite import BenchmarkSuite

        if form not in ("table", "json", "markdown", "svg"):
            raise ValueError(f"there is no format {form!r}: choose table, json, markdown or svg")
        found = BenchmarkSuite(seconds, seed, launches, tolerance, progress=sys.stderr.isatty()).evaluate(file)
        if form == "table":
            found.table().print_rich()
        else:
            print({"json": found.to_json(), "markdown": found.to_markdown(), "svg": scatter([found])}[form])
        if not found.passed:
            _fail(f"{found.quality:.4g} {found.unit} misses the target beside {found.reference_quality:.4g}", 1)


@app.command()
def submit(
    file: Submitted,
    token: Annotated[str, typer.Option(envvar="TINYMLPERF_TOKEN", help="yours; better in the environment")],
    server: Annotated[str | None, typer.Option(help="http://HOST:PORT; else a board that you can reach")] = None,
    board: Board = BOARD,
    files: Files = None,
) -> None:
    """Hand a file in. The same file again changes nothing and costs nothing."""
    with _explained():
        from tinytorch.benchmarks.tinymlperf.submission import Submission

        submission = Submission.open(file)
        if server is not None:
            from tinytorch.benchmarks.tinymlperf.client import send

            print(send(server, token, file))
            return
        with _board(board, files) as opened:
            submission.need_division(opened.competition.division)
            receipt = opened.submit(opened.authenticate(token), file, now=now())
            what = "received" if receipt.new else f"known already, {receipt.state.value}"
            print(f"submission {receipt.submission}: {what}; {receipt.quota_left} left today")


@app.command()
def leaderboard(
    task: Annotated[str, typer.Option(help="one of the tasks, or overall")] = "overall",
    as_csv: Annotated[bool, typer.Option("--csv", help="all of it, for a spreadsheet")] = False,
    board: Board = BOARD,
    files: Files = None,
) -> None:
    """Show the ranking."""
    with _explained(), _board(board, files) as opened:
        from tinytorch.benchmarks.tinymlperf.leaderboard.export import to_csv
        from tinytorch.profiling.table import Column, Table

        standings = opened.standings()
        if task not in standings:
            raise KeyError(f"no ranking for {task!r}; there are: {', '.join(standings)}")
        if as_csv:
            sys.stdout.write(to_csv(standings[task]))
            return
        rows = [
            (
                r.rank,
                r.entry.participant,
                f"{e.value:.0f}",
                f"{e.low:.0f} to {e.high:.0f}",
                f"{r.entry.deterministic:.2f}",
            )
            for r in standings[task]
            for e in (r.entry.score,)
        ]
        names = (
            Column("rank"),
            Column("participant", words=True),
            Column("score"),
            Column("95 % interval"),
            Column("without time"),
        )
        Table(f"TinyMLPerf, {task}", names, rows).print_rich()


# For who organizes


@app.command()
def init(
    deadline: Annotated[datetime, typer.Option(help="UTC: 2026-12-31T23:59:59")],
    quota: Annotated[int, typer.Option(help="new submissions a day, for each participant")] = 10,
    division: Annotated[str, typer.Option(help="closed or open")] = "closed",
    task: Annotated[list[str] | None, typer.Option(help="again for each; all by default")] = None,
    board: Board = BOARD,
    files: Files = None,
) -> None:
    """Open a competition; the seed of its hidden samples is drawn and kept in the board."""
    with _explained(), _board(board, files) as opened:
        from tinytorch.benchmarks.tinymlperf.tasks import TASKS, load_task

        tasks = task or list(TASKS)
        for name in tasks:
            load_task(name)
        end = deadline.replace(tzinfo=UTC) if deadline.tzinfo is None else deadline
        rules: dict[str, Any] = {"tasks": tasks, "deadline": end, "daily_quota": quota, "division": division}
        opened.create_competition(**rules, now=now())
        print(f"open until {end.isoformat()}: {', '.join(tasks)}")


@app.command()
def join(
    pseudonym: Annotated[list[str] | None, typer.Argument(help="names to be shown; or --count of new ones")] = None,
    count: Annotated[int, typer.Option(help="how many new pseudonyms")] = 0,
    board: Board = BOARD,
    files: Files = None,
) -> None:
    """Let people take part: writes pseudonym,token lines. Tokens are shown this once."""
    with _explained(), _board(board, files) as opened:
        lines = csv.writer(sys.stdout, lineterminator="\n")
        lines.writerow(("pseudonym", "token"))
        for name in [*(pseudonym or []), *[None] * count]:
            account = opened.add_participant(name, now=now())
            lines.writerow((account.pseudonym, account.token))


@app.command()
def evaluate(
    seconds: Annotated[float, typer.Option(help="for each scenario of a submission")] = 10.0,
    launches: Annotated[int, typer.Option(help="of its processes; the median one counts")] = 5,
    tolerance: Annotated[float, typer.Option(help="how much longer the reference may take than alone")] = 1.5,
    scheduler: Annotated[str | None, typer.Option(help="tcp://HOST:PORT of a Dask cluster")] = None,
    hidden: Annotated[Path | None, typer.Option(help="folder of your own samples, TASK.safetensors")] = None,
    watch: Annotated[bool, typer.Option(help="go on when the queue is empty, until Ctrl-C")] = False,
    board: Board = BOARD,
    files: Files = None,
) -> None:
    """Measure what waits in the queue."""
    with _explained(), _board(board, files) as opened:
        from time import sleep

        from tinytorch.benchmarks.tinymlperf.evaluator import How, drain, drain_on_cluster

        done, how = 0, How(seconds, launches, hidden, tolerance)
        while True:
            if scheduler is None:
                done += drain(opened, how, _tell)
            else:
                done += drain_on_cluster(opened, scheduler, how, _tell)
            if not watch:
                break
            sleep(2.0)
        print(f"{done} measured, {opened.queue().waiting} waiting")


def _tell(lease: Any, outcome: dict[str, Any]) -> None:
    if "report" in outcome:
        from tinytorch.benchmarks.tinymlperf.leaderboard.report import Report

        found = Report.from_json(outcome["report"])
        what = f"{found.task}, score {found.score.value:.0f}"
    else:
        what = f"rejected, {outcome['code']}" if "code" in outcome else f"failed, {outcome['failure']}"
    print(f"submission {lease.submission}: {what}", flush=True)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="0.0.0.0 for others than this machine")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any that is free")] = 8000,
    board: Board = BOARD,
    files: Files = None,
) -> None:
    """Serve the leaderboard, and take submissions, until Ctrl-C."""
    with _explained(), _board(board, files) as opened:
        import uvicorn

        from tinytorch.benchmarks.tinymlperf.submission import Submission
        from tinytorch.benchmarks.tinymlperf.tasks import load_task
        from tinytorch.benchmarks.tinymlperf.web import create_app

        def refusal(path: Path) -> str | None:
            try:
                Submission.open(path).need_division(opened.competition.division)
            except Rejected as rejected:
                return str(rejected)
            return None

        titles = {name: load_task(name).title for name in opened.competition.tasks}
        app = create_app(opened, check=refusal, titles=titles)
        level = os.environ.get("LOG_LEVEL", "info")
        uvicorn.run(app, host=host, port=port, log_level=level, server_header=False)


if __name__ == "__main__":
    app()
