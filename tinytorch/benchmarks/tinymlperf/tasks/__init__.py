"""The tasks of the competition: `load_task("image-classification")`."""

from __future__ import annotations

from pathlib import Path

from tinytorch.benchmarks.tinymlperf.tasks.images import AnomalyDetection, ImageClassification
from tinytorch.benchmarks.tinymlperf.tasks.language import LanguageModel
from tinytorch.benchmarks.tinymlperf.tasks.task import Split, Task

__all__ = ["TASKS", "Split", "Task", "load_task"]

TASKS: dict[str, type[Task]] = {task.name: task for task in (ImageClassification, LanguageModel, AnomalyDetection)}


def load_task(name: str, hidden_file: Path | None = None) -> Task:
    """Return a task; `hidden_file` holds the organizer's own samples, arrays `inputs` and `labels` in safetensors.

    A KeyError lists the names if there is none of this name.
    """
    if name not in TASKS:
        raise KeyError(f"no task {name!r}; there are: {', '.join(TASKS)}")
    return TASKS[name](hidden_file)
