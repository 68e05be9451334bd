"""What a task is: data, a metric, a target, and a reference to be measured against."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tinytorch import zoo
from tinytorch.benchmarks.tinymlperf import file
from tinytorch.benchmarks.tinymlperf.graph import Spec
from tinytorch.benchmarks.tinymlperf.limits import Limits


@dataclass(frozen=True)
class Split:
    """Samples, and what is known of them.

    Attributes
    ----------
    inputs
        What models are given, (N, ...).
    labels
        What they are not given: what it means is the task's own affair.
    """

    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, chosen: Any) -> Split:
        return Split(self.inputs[chosen], self.labels[chosen])


class Task(ABC):
    """Base of the tasks. What differs from one to the other are attributes and three methods.

    Attributes
    ----------
    name, title
        For programs, for people.
    model
        The reference's name in the zoo.
    metric, unit
        Of the quality.
    higher_is_better
        Whether more of it is better.
    allowed_loss
        How much worse than the reference, on the same samples, a submission may be.
    input, output
        What its graphs take and return.
    batch_size
        Samples at once in the offline scenario; in single-stream it is one.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    model: ClassVar[str]
    metric: ClassVar[str]
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool]
    allowed_loss: ClassVar[float]
    input: ClassVar[Spec]
    output: ClassVar[Spec]
    batch_size: ClassVar[int]
    hidden_size: ClassVar[int]

    def __init__(self, hidden_file: Path | None = None) -> None:
        self._file = hidden_file

    def reference(self) -> Any:
        """Return the trained model that submissions are measured against."""
        return zoo.load(self.model)

    @abstractmethod
    def public(self) -> Split:
        """Return samples that everybody may look at, to choose with; no model of the zoo was trained on them."""

    @abstractmethod
    def _draw(self, rng: np.random.Generator) -> Split:
        """Draw `hidden_size` samples that nobody has seen."""

    @abstractmethod
    def quality(self, outputs: np.ndarray, split: Split) -> float:
        """Return how good outputs (N, ...) are for the inputs of a split, in the task's `unit`."""

    def hidden(self, seed: int) -> Split:
        """Return the samples that count: of the organizer's own file if there is one, else drawn with a secret seed.

        Raises
        ------
        Rejected
            If the file is none of ours.
        ValueError
            If its arrays are not the task's.
        """
        rng = np.random.default_rng([seed, *self.name.encode()])
        if self._file is None:
            return self._draw(rng)
        arrays = file.read(self._file, Limits(file_bytes=2**30))[1]
        if set(arrays) != {"inputs", "labels"}:
            raise ValueError(f"{self._file.name} has {sorted(arrays)}: samples are arrays `inputs` and `labels`")
        split = Split(arrays["inputs"], arrays["labels"])
        shape = tuple(size for size in self.input.shape[1:] if isinstance(size, int))
        if split.inputs.dtype != self.input.dtype or split.inputs.shape[-len(shape) or None :][: len(shape)] != shape:
            raise ValueError(
                f"{self._file.name} has inputs {split.inputs.shape} {split.inputs.dtype}, "
                f"{self.name} takes {self.input.shape} {self.input.dtype}"
            )
        if len(split.labels) != len(split.inputs):
            raise ValueError(f"{self._file.name} has {len(split)} inputs and {len(split.labels)} labels")
        return split[rng.permutation(len(split))[: self.hidden_size]]

    def meets(self, quality: float, reference: float) -> bool:
        """Tell whether a quality is good enough beside the reference's on the same samples."""
        lost = reference - quality if self.higher_is_better else quality - reference
        return lost <= self.allowed_loss
