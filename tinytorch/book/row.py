"""One published number: how it reads, where it comes from, and whether it reached its aim."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

_AIM = re.compile(r" \(aim at (least|most) ([\d.]+): (reached|missed|undecided)\)$")


class Aim(NamedTuple):
    """What was wanted of a number: at least or at most so much, and whether it is so."""

    kind: str
    value: float
    verdict: str


@dataclass(frozen=True)
class Row:
    """One published number and where it comes from.

    Attributes
    ----------
    value, unit, what
        The number, in which unit, and what it is.
    command, date, machine
        What computes or measures it again; when and on what it was measured, if it was.
    low, high
        Its interval, in the same unit, if there is one.
    digits
        How many are shown; whole numbers have all of theirs.
    """

    value: float
    unit: str
    what: str
    command: str
    date: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None
    digits: int = 3

    def __str__(self) -> str:
        """Return the value with its unit: whole numbers exactly, others to so many digits."""
        return f"{self.number} {self.unit}".strip()

    @property
    def number(self) -> str:
        """The value without its unit."""
        return self._format(self.value)

    @property
    def interval(self) -> str:
        """The interval in words, or nothing."""
        return "" if self.low is None or self.high is None else f"{self._format(self.low)} to {self._format(self.high)}"

    @property
    def aim(self) -> Aim | None:
        """What `what` says at its end of an aim in the row's own unit, if it has one."""
        found = _AIM.search(self.what)
        return None if found is None else Aim(found[1], float(found[2]), found[3])

    @property
    def title(self) -> str:
        """What it is, without its aim."""
        return _AIM.sub("", self.what)

    @property
    def source(self) -> str:
        """A sentence for the line below a figure: what computes the number again, or where it was measured."""
        if not self.date:
            return f"Computed by `{self.command}`."
        words = {"cpu": "{}", "cores": "{} cores", "blas": "BLAS {}", "python": "Python {}", "numpy": "NumPy {}"}
        facts = ", ".join(word.format(self.machine[key]) for key, word in words.items() if key in self.machine)
        return f"Measured by `{self.command}` on {self.date}: {facts}."

    def _format(self, value: float) -> str:
        if float(value).is_integer():
            return f"{int(value):,}"
        return np.format_float_positional(value, precision=self.digits, unique=False, fractional=False, trim="-")
