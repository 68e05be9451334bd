"""`Submission`: one file with a graph and its tensors, checked when it is opened and when it is made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from tinytorch.benchmarks.tinymlperf import file
from tinytorch.benchmarks.tinymlperf.graph import Graph
from tinytorch.benchmarks.tinymlperf.inference import SAMPLE, Costs, Step, costs, follow
from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.operations.text import REMEMBER
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected

KEY = "tinymlperf"  # of the graph, in the file's metadata


@dataclass(frozen=True)
class Submission:
    """What is handed in for one task.

    Attributes
    ----------
    graph, arrays
        What it computes, and with which numbers.
    raw
        The bytes of the file that it came from, if it came from one.
    """

    graph: Graph
    arrays: Mapping[str, np.ndarray]
    raw: bytes | None = field(default=None, repr=False)

    @classmethod
    def open(cls, path: str | Path, limits: Limits | None = None) -> Submission:
        """Read and check a file; Rejected says what is wrong with it. Nothing of it is run."""
        limits = limits or Limits()
        raw = file.read_bytes(path, limits)
        metadata, arrays = file.unpack(raw, limits)
        if set(metadata) != {KEY}:
            raise Rejected(Code.BAD_METADATA, f"the metadata has to hold the graph under {KEY!r}, and nothing else")
        graph = Graph.from_json(metadata[KEY], arrays, limits)
        submission = cls(graph, arrays, raw)
        submission.check(limits)
        return submission

    def check(self, limits: Limits | None = None) -> None:
        """Follow all shapes; Rejected if they do not fit together, or not the task.

        They are followed for one sample, which is what limits are for. Every operation leaves the first axis as it
        comes, so that what fits for one sample fits for any number.
        """
        from tinytorch.benchmarks.tinymlperf.tasks import TASKS

        task = TASKS.get(self.task)
        if task is None:
            raise Rejected(Code.WRONG_TASK, f"there is no task {self.task!r}; there are {', '.join(sorted(TASKS))}")
        given = [(i.name, i.dtype, i.shape) for i in self.graph.inputs]
        if given != [(task.input.name, task.input.dtype, task.input.shape)]:
            what = f"{task.input.name}, {task.input.dtype} {task.input.shape}"
            raise Rejected(Code.WRONG_TASK, f"{self.task} gives one input, {what}")
        limits = limits or Limits()
        steps = follow(self.graph, self.arrays, limits)
        _check_text(steps, task.output.shape[-1])
        found = [step.output for step in steps if step.name in self.graph.outputs]
        wanted = tuple(SAMPLE[size] if isinstance(size, str) else size for size in task.output.shape)
        if [(f.dtype, f.shape) for f in found] != [(task.output.dtype, wanted)]:
            shapes = ", ".join(f"{f.dtype} {f.shape}" for f in found)
            raise Rejected(Code.WRONG_TASK, f"{self.task} asks for {task.output.dtype} {wanted}, not {shapes}")
        peak, most = costs(self.graph, steps).peak_activation_bytes, limits.activation_bytes
        if peak > most:
            raise Rejected(Code.TOO_LARGE, f"{peak:,} bytes are alive at once, and {most:,} are allowed")

    def save(self, path: str | Path) -> Path:
        """Write the file, whole or not at all. Rejected if `open` would refuse it."""
        self.check()
        Graph.from_json(self.graph.to_json(), self.arrays)
        file.write(path, {KEY: self.graph.to_json()}, self.arrays)
        return Path(path)

    def to_bytes(self) -> bytes:
        """Return the bytes of the file; equal submissions that come from no file have equal bytes.

        Rejected if an array is of a type that files do not hold.
        """
        return self.raw if self.raw is not None else file.pack({KEY: self.graph.to_json()}, self.arrays)

    @property
    def task(self) -> str:
        """The task that it is for."""
        return self.graph.task

    @property
    def division(self) -> str:
        """By which rules: "closed" or "open"."""
        return self.graph.division

    def need_division(self, division: str) -> None:
        """Raise Rejected if it was made for another division than that of a competition."""
        if self.division != division:
            raise Rejected(
                Code.WRONG_DIVISION, f"this is a competition of the {division} division, not {self.division}"
            )

    @cached_property
    def stored_bytes(self) -> int:
        """The size of the file."""
        return len(self.to_bytes())

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the file, in hexadecimal digits."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @cached_property
    def costs(self) -> Costs:
        """What one sample costs."""
        return costs(self.graph, follow(self.graph, self.arrays))


def _check_text(steps: list[Step], tokens: int | str) -> None:
    """Reject a table that lacks tokens of the task, and attention layers that remember differently."""
    for step in steps:
        table = step.arrays[0] if step.operation.name == "embedding" else None
        if table is not None and len(table) != tokens:
            raise Rejected(Code.BAD_SHAPE, f"embedding has {len(table)} rows, and the task {tokens} tokens")
    kinds = [step.attributes for step in steps if step.operation.name in REMEMBER]
    if any(kind != kinds[0] for kind in kinds):
        raise Rejected(Code.BAD_ATTRIBUTE, "all attention nodes need the same attributes: they share one cache")
