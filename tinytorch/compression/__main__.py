"""Compression's command line: `python -m tinytorch.compression study`, or `text`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tinytorch.compression.study.points import points
from tinytorch.compression.study.run import RUN, study
from tinytorch.compression.study.shipped import FOLDER
from tinytorch.compression.study.text import TEXT_LEVELS, train_text
from tinytorch.data import DataError
from tinytorch.zoo.training import Interrupted


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, 1 for an error that was explained, or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m tinytorch.compression", description="What making a model smaller costs in right answers."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("study", help="measure every row of chapter 17 again: about an hour")
    sub.add_argument(
        "--only", nargs="+", metavar="POINT", choices=points(), default=[], help=f"of: {', '.join(points())}"
    )
    sub.add_argument("--seeds", type=int, default=3, help="how many (default: %(default)s)")
    sub.add_argument("--resume", action="store_true", help="keep what the folder has already")
    sub.add_argument("--out", type=Path, default=FOLDER, help="folder for results and models")
    sub = commands.add_parser("text", help="train the GPTs with zeros again: some minutes each")
    sub.add_argument("--levels", nargs="+", type=int, choices=TEXT_LEVELS, default=TEXT_LEVELS, help="percent of zeros")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "text":
            for level in arguments.levels:
                loss = train_text(level)["rows"]["loss"]
                print(f"{level} % of weights zero: {loss['value']:.3f} {loss['unit']}, {loss['what']}")
            return 0
        rows = study(arguments.only, arguments.seeds, arguments.resume, arguments.out)
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 130
    except (DataError, FloatingPointError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, row in rows.items():
        print(f"{f'{RUN}/{name}':32} {row['value']:5.2f} %  {row['low']:5.2f} to {row['high']:5.2f}  {row['what']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
