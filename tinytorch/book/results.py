"""Published numbers: what was measured, on which machine, and the prose that a command writes from it.

``chapters/measured.json`` holds one entry per run: its command, date and machine, and its rows. A row is named
``run/row`` and has a value, a unit, what it is and, where it was measured often enough, an interval::

    {"core": {"command": "make bench", "date": "2026-01-31",
              "machine": {"cpu": "...", "cores": 2, "blas": "...", "python": "3.11.7", "numpy": "2.4.6"},
              "rows": {"cnn_epoch": {"value": 1.32, "low": 1.29, "high": 1.35, "unit": "x",
                                     "what": "CNN training epoch, time over PyTorch's"}}}}

In Markdown ``<!-- results:core/cnn_* -->`` on a line of its own opens a table of the rows so named, and in a sentence
``<!-- results:core/cnn_epoch -->`` opens one value; ``<!-- /results -->`` closes both. Several names, with commas
between them, make one table in their order. ``<!-- plot:15_acceleration -->`` opens the picture of a chapter's rows,
``results.svg`` beside the file, and ``<!-- /plot -->`` closes it. What stands between them, and the picture, is written
by ``python -m tinytorch.book.results write``; ``check`` fails where it is stale. A study of a chapter keeps its run in
a file of the same form inside the package, beside its models. Each model of the zoo is a run too:
``zoo-reference_cnn/accuracy`` is a number on its card.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tinytorch.book.row import Row
from tinytorch.book.speedups import PLOTS, alt, draw
from tinytorch.data import files
from tinytorch.kernels.machine import machine

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "chapters" / "measured.json"
PICTURE = "results.svg"  # in a chapter's folder
PUBLISHED = (MEASURED, ROOT / "tinytorch" / "compression" / "study" / "results.json")
CARDS = ROOT / "tinytorch" / "zoo" / "weights"

_MARKED = re.compile(r"(<!-- results:(\S+) -->)(.*?)(<!-- /results -->)", re.DOTALL)
_PLOT = re.compile(r"(<!-- plot:(\S+) -->).*?(<!-- /plot -->)", re.DOTALL)


def rows(*paths: Path, cards: Path = CARDS) -> dict[str, Row]:
    """Return every published number, of the files of measurements and of the models' cards, by its name, ``run/row``.

    Parameters
    ----------
    paths
        The files of measurements; without any, all that are published.

    Raises
    ------
    ValueError
        If a row lacks something or has something else, or two files have a run of one name; the message names it.
    """
    result = {}
    for run, entry in _runs(paths or PUBLISHED).items():
        for name, row in entry["rows"].items():
            try:
                result[f"{run}/{name}"] = Row(**row, **{key: entry[key] for key in ("command", "date", "machine")})
            except (KeyError, TypeError) as error:
                form = "tinytorch/book/results.py tells the form"
                raise ValueError(f"{run}/{name} is no published number: {error}; {form}") from None
    for card in map(_read, sorted(cards.glob("*.json"))):
        command = f"python -m tinytorch.zoo evaluate {card['name']}"
        parameters = {"value": card["parameters"], "unit": "", "what": "parameters"}
        for name, row in {"parameters": parameters, **card["rows"]}.items():
            result[f"zoo-{card['name']}/{name}"] = Row(**row, command=command, digits=4)
    return result


def measured(key: str) -> Row:
    """Return one published number by its name, ``run/row``.

    Raises
    ------
    KeyError
        If nothing of that name was measured; the message tells what was.
    """
    known = rows()
    if key not in known:
        raise KeyError(f"nothing measured is called {key}; there is: {', '.join(sorted(known)) or 'nothing yet'}")
    return known[key]


def record(run: str, command: str, rows: Mapping[str, Mapping[str, Any]], path: Path = MEASURED) -> None:
    """Replace one run in the file of measurements by what was just measured here, and leave the others.

    Parameters
    ----------
    run
        The name of the run: the chapter's or the study's.
    command
        What to type to measure it again.
    rows
        By name: ``value``, ``unit`` and ``what``, with ``low`` and ``high`` where there is an interval.
    """
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    entry = {"command": command, "date": today, "machine": machine(), "rows": {k: dict(v) for k, v in rows.items()}}
    text = json.dumps(_read(path) | {run: entry}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    files.write(path, text.encode())


def _runs(paths: Iterable[Path]) -> dict[str, Any]:
    runs: dict[str, Any] = {}
    for path in paths:
        found = _read(path)
        if twice := sorted(found.keys() & runs.keys()):
            raise ValueError(f"{path} has runs that another file has, too: {', '.join(twice)}")
        runs |= found
    return runs


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def render(text: str, known: Mapping[str, Row]) -> str:
    """Return Markdown with everything between its markers written anew.

    Raises
    ------
    KeyError
        If a marker names no row, or no chapter that has a picture.
    """

    def fill(match: re.Match[str]) -> str:
        opening, patterns, old, closing = match.groups()
        chosen = []
        for pattern in patterns.split(","):
            found = [row for name, row in known.items() if fnmatchcase(name, pattern)]
            if not found:
                raise KeyError(f"<!-- results:{patterns} --> names no measured row: {pattern}")
            chosen += found
        return opening + (_table(chosen) if "\n" in old else str(chosen[0])) + closing

    def picture(match: re.Match[str]) -> str:
        opening, chapter, closing = match.groups()
        if chapter not in PLOTS:
            raise KeyError(f"<!-- plot:{chapter} --> names no picture; there is: {', '.join(PLOTS)}")
        return f"{opening}\n![{alt(chapter, known)}]({PICTURE})\n{closing}"

    return _PLOT.sub(picture, _MARKED.sub(fill, text))


def _table(chosen: list[Row]) -> str:
    with_interval = any(row.interval for row in chosen)
    table = [["what", "result", "interval"], ["---"] * 3, *([row.what, str(row), row.interval] for row in chosen)]
    lines = [f"| {' | '.join(cells if with_interval else cells[:2])} |" for cells in table]
    sources = dict.fromkeys(row.source for row in chosen)
    return "\n" + "\n".join(lines) + "\n\n" + "\n".join(sources) + "\n"


def documents(root: Path = ROOT) -> list[Path]:
    """Return the Markdown files that may hold result markers."""
    return sorted([*root.glob("*.md"), *root.glob("chapters/**/*.md")])


def pictures(root: Path = ROOT) -> list[Path]:
    """Return where the chapters' pictures belong."""
    return [root / "chapters" / chapter / PICTURE for chapter in PLOTS]


def stale(paths: Iterable[Path], known: Mapping[str, Row], *, write: bool = False) -> list[Path]:
    """Return the files whose results are not what was measured last; with ``write`` they are then put right.

    Raises
    ------
    KeyError
        If a marker names no row or no picture; the message names the file.
    """
    found = []
    for path in paths:
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        try:
            new = draw(path.parent.name, known) if path.name == PICTURE else render(old, known)
        except KeyError as error:
            raise KeyError(f"{path}: {error.args[0]}") from None
        if new != old:
            found.append(path)
            if write:
                path.write_text(new, encoding="utf-8", newline="\n")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tinytorch.book.results")
    parser.add_argument("command", choices=["write", "check"])
    options = parser.parse_args(arguments)
    try:
        found = stale([*documents(), *pictures()], rows(), write=options.command == "write")
    except (KeyError, ValueError) as error:
        print(error.args[0], file=sys.stderr)
        return 1
    for path in found:
        print(path.relative_to(ROOT), "written" if options.command == "write" else "is stale: run 'make results'")
    return 1 if found and options.command == "check" else 0


if __name__ == "__main__":
    sys.exit(main())
