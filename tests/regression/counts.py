"""Exact counts of models and kernels, committed: `python -m tests.regression.counts write`, or `check`.

FLOPs, bytes, simulated cache misses and instructions do not depend on the machine: a change is a change of the code.
The table is `counts.json`; whoever means a change writes it anew, and the diff shows it to whoever reviews.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("counts.json")
ACCEPT = "python -m tests.regression.counts write"


def committed() -> dict[str, Any]:
    """Return the tables, "counts" and "instructions", and the "compiler" that the instructions belong to."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


def change(name: str, old: Mapping[str, int], new: Mapping[str, int]) -> str | None:
    """Say in words what has changed of a row, and how to accept it; None if nothing has."""
    before, now = old.get(name), new.get(name)
    if before == now:
        return None
    if before is None:
        text = f"{name}: a new row, {now:,}"
    elif now is None:
        text = f"{name}: {before:,} is committed, and nothing of that name is counted any more"
    else:
        more = f" ({now / before - 1:+.1%})" if before else ""
        text = f"{name}: {before:,} is committed, {now:,} is counted{more}"
    return f"{text}. If this is meant: {ACCEPT}"


def changes(old: Mapping[str, int], new: Mapping[str, int]) -> list[str]:
    """Return what `change` says of all rows."""
    return [text for name in {**old, **new} if (text := change(name, old, new))]


def main(argv: list[str] | None = None) -> int:
    """Count; write the table, or print what differs from it and return 1."""
    from tests.regression import counted, instructions

    arguments = sys.argv[1:] if argv is None else argv
    if arguments not in (["write"], ["check"]):
        print("usage: python -m tests.regression.counts write|check", file=sys.stderr)
        return 2
    before, found = committed() if TABLE.exists() else {}, {"counts": counted.counts()}
    if missing := instructions.missing():
        print(f"instructions are not counted here, and their rows stay as they are: {missing}", file=sys.stderr)
    else:
        found["instructions"] = instructions.counts()
    differences = [text for part, rows in found.items() for text in changes(before.get(part, {}), rows)]
    if arguments == ["write"]:
        compiler = {} if missing else {"compiler": instructions.compiler()}
        TABLE.write_text(json.dumps(before | compiler | found, indent=2) + "\n", encoding="utf-8")
    for text in differences:
        print(text)
    return int(bool(differences) and arguments == ["check"])


if __name__ == "__main__":
    sys.exit(main())
