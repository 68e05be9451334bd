"""`Result`: what an evaluation found, as JSON, as a table, as Markdown."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import tinytorch
from tinytorch.benchmarks.tinymlperf.clock import now
from tinytorch.benchmarks.tinymlperf.scoring import Ratios, Score, score
from tinytorch.kernels.machine import cpu_name
from tinytorch.profiling.table import Column, Table, seconds
from tinytorch.profiling.timing.statistics import Estimate

if TYPE_CHECKING:
    from tinytorch.benchmarks.tinymlperf.submission import Submission
    from tinytorch.benchmarks.tinymlperf.suite import Measured
    from tinytorch.benchmarks.tinymlperf.tasks import Task


@dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Attributes
    ----------
    task, division, content_hash
        Of the submission.
    quality, reference_quality, unit
        On the hidden samples.
    ratios
        The reference's costs over the submission's; `passed` among them.
    flops, stored_bytes, peak_activation_bytes
        The submission's own costs.
    scenarios
        For each its rounds, the speed-up, and the latency in seconds, with intervals.
    seed, machine, versions, date
        What it depends on beside the submission.
    """

    task: str
    division: str
    content_hash: str
    quality: float
    reference_quality: float
    unit: str
    ratios: Ratios
    flops: int
    stored_bytes: int
    peak_activation_bytes: int
    scenarios: dict[str, dict[str, Any]]
    seed: int
    machine: str
    versions: dict[str, str]
    date: str

    @classmethod
    def of(cls, task: Task, submission: Submission, found: Ratios, measured: Measured, seed: int) -> Result:
        """Put together what is known."""
        scenarios = {
            name: {
                "rounds": s.rounds,
                "launches": len(s.launches),
                "speedup": _three(s.speedup),
                "seconds": s.seconds(0),
                "reference_seconds": s.seconds(1),
                "latency_p90": None if (latency := s.latency) is None else _three(latency),
            }
            for name, s in measured.scenarios.items()
        }
        costs = submission.costs
        versions = {"python": platform.python_version(), "numpy": np.__version__, "tinytorch": tinytorch.__version__}
        return cls(
            task.name, submission.division, submission.content_hash, measured.quality, measured.reference_quality,
            task.unit, found, costs.flops, submission.stored_bytes, costs.peak_activation_bytes, scenarios, seed,
            cpu_name(), versions, now().isoformat(timespec="seconds"),
        )  # fmt: skip

    @property
    def passed(self) -> bool:
        """Whether the quality target is met."""
        return self.ratios.passed

    @property
    def score(self) -> Score:
        """The score of this task alone."""
        return score({self.task: self.ratios}, [self.task])

    def to_json(self) -> str:
        """Return everything, for programs: the same keys always."""
        r, s = self.ratios, self.score
        whole = {name: value for name, value in asdict(self).items() if name != "ratios"} | {
            "passed": r.passed,
            "speedup": _three(r.speedup),
            "flops_ratio": r.flops,
            "bytes_ratio": r.bytes,
            "activation_ratio": r.activation,
            "score": _three(s.score),
            "deterministic_score": s.deterministic,
        }
        return json.dumps(whole, sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Read what `to_json` wrote; scores in it are not read, but computed.

        A KeyError, TypeError or ValueError if it is something else.
        """
        found = json.loads(text)
        low, value, high = found.pop("speedup")
        flops, stored, activation = (found.pop(f"{name}_ratio") for name in ("flops", "bytes", "activation"))
        ratios = Ratios(Estimate(value, low, high), flops, stored, activation, found.pop("passed"))
        for name in ("score", "deterministic_score"):
            found.pop(name)
        return cls(ratios=ratios, **found)

    def table(self) -> Table:
        """Return it for people."""
        r, s = self.ratios, self.score
        rows = [
            ("quality", f"{self.quality:.4g} {self.unit}", f"{self.reference_quality:.4g}", _verdict(r.passed)),
            *(
                (name, seconds(found["seconds"]), seconds(found["reference_seconds"]), _range(found["speedup"]))
                for name, found in self.scenarios.items()
            ),
            ("operations", f"{self.flops:,}", f"{round(self.flops * r.flops):,}", f"{r.flops:.4g}"),
            ("stored bytes", f"{self.stored_bytes:,}", f"{round(self.stored_bytes * r.bytes):,}", f"{r.bytes:.4g}"),
            (
                "activations", f"{self.peak_activation_bytes:,}",
                f"{round(self.peak_activation_bytes * r.activation):,}", f"{r.activation:.4g}",
            ),
            ("score", _range(_three(s.score)), "1000", ""),
            ("without time", f"{s.deterministic:.2f}", "1000.00", ""),
        ]  # fmt: skip
        columns = Column("", words=True), Column("this"), Column("reference"), Column("times as good")
        notes = [f"{self.task}, {self.division} division; seed {self.seed}", self.machine]
        return Table(f"TinyMLPerf, {self.task}", columns, rows, notes)

    def to_markdown(self) -> str:
        """Return the table in Markdown."""
        table = self.table()
        head = "| " + " | ".join(column.title for column in table.columns) + " |"
        lines = [head, "|" + " --- |" * len(table.columns)]
        return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in table.rows)]) + "\n"

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def _verdict(passed: bool) -> str:
    return "" if passed else "target missed"


def _three(e: Estimate) -> list[float]:
    return [e.low, e.value, e.high]


def _range(three: list[float]) -> str:
    low, value, high = three
    return f"{value:.4g} ({low:.4g} to {high:.4g})"
