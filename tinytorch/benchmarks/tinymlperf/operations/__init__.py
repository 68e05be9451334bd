"""The operations that graphs are made of: `OPERATIONS["conv2d"]`."""

from __future__ import annotations

from tinytorch.benchmarks.tinymlperf.operations.codes import CODES
from tinytorch.benchmarks.tinymlperf.operations.floats import FLOATS
from tinytorch.benchmarks.tinymlperf.operations.operation import Flow, Operation
from tinytorch.benchmarks.tinymlperf.operations.text import TEXT
from tinytorch.benchmarks.tinymlperf.operations.zeros import ZEROS

__all__ = ["OPERATIONS", "Flow", "Operation"]

OPERATIONS: dict[str, Operation] = {operation.name: operation for operation in (*FLOATS, *CODES, *ZEROS, *TEXT)}
