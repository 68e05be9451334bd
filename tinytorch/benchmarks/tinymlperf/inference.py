"""What a graph will do, found out before anything of it is done: every shape, and what it all costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.benchmarks.tinymlperf.graph import Graph, Node
from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.operations import OPERATIONS, Flow, Operation
from tinytorch.benchmarks.tinymlperf.operations.text import REMEMBER, cache_bytes
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected, quoted

_IN_PLACE = ("relu", "gelu", "max_pool2d", "avg_pool2d", "flatten")
SAMPLE = {"N": 1, "T": 256}  # what one sample is: an image, or 256 positions of a text


@dataclass(frozen=True)
class Step:
    """A node with all that is known of it."""

    node: Node
    operation: Operation
    arrays: list[np.ndarray | None]
    attributes: dict[str, Any]
    inputs: list[Flow]
    output: Flow

    @property
    def values(self) -> tuple[str, ...]:
        """The names of the values that it works on."""
        return self.node.inputs[: self.operation.values]

    @property
    def name(self) -> str:
        """The name of its result."""
        return self.node.outputs[0]

    def layer(self) -> Any:
        """Return the module that does it."""
        return self.operation.layer(self.arrays, self.attributes, self.inputs[0], self.output)

    def flops(self) -> int:
        """Return its operations, 2 for each multiplication with addition."""
        return self.operation.flops(self.inputs[0], self.output, self.arrays, self.attributes)


@dataclass(frozen=True)
class Costs:
    """What one sample costs: FLOPs, and the most bytes of values and of memory that are alive at once."""

    flops: int
    peak_activation_bytes: int


def follow(
    graph: Graph, arrays: Mapping[str, np.ndarray], limits: Limits | None = None, sizes: Mapping[str, int] | None = None
) -> list[Step]:
    """Follow shapes through a graph, for one sample or other `sizes` of "N" and "T".

    Raises
    ------
    Rejected
        If an operation is unknown, or its inputs, tensors or attributes do not fit; if a value or the sum of operations
        is larger than the limits allow. Nothing is computed or allocated.
    """
    limits, sizes = limits or Limits(), sizes or SAMPLE
    flows: dict[str, Flow] = {}
    for given in graph.inputs:
        shape = tuple(sizes[size] if isinstance(size, str) else size for size in given.shape)
        if given.dtype not in ("float32", "int64"):
            raise Rejected(Code.BAD_DTYPE, f"input {given.name} is {quoted(given.dtype)}: inputs are float32 or int64")
        flows[given.name] = _small(Flow(given.dtype, shape), given.name, limits)
    steps, total = [], 0
    for number, node in enumerate(graph.nodes):
        step = _step(number, node, flows, arrays, limits)
        flows[step.name] = step.output
        total += step.flops()
        if total > limits.flops:
            raise Rejected(Code.TOO_LARGE, f"up to node {number} a sample takes over {limits.flops:,} operations")
        steps.append(step)
    return steps


def costs(graph: Graph, steps: list[Step], sizes: Mapping[str, int] | None = None) -> Costs:
    """Count what `follow` found.

    Values live from the node that makes them to the last that uses them. ReLU, GELU, pooling and flattening are done
    where the numbers before them are written, if nothing else uses those: what is between them takes no memory.
    """
    last = {name: number for number, step in enumerate(steps) for name in step.values}
    last |= dict.fromkeys(graph.outputs, len(steps))
    flows = {name: flow for step in steps for name, flow in zip(step.values, step.inputs, strict=True)}
    alive = {given.name: flows[given.name].nbytes for given in graph.inputs}
    attentions = [step for step in steps if step.operation.name in REMEMBER]
    positions = (sizes or SAMPLE)["T"]
    remembered = sum(cache_bytes(step.attributes, step.output.shape[2], positions) for step in attentions)
    peak = 0
    for number, step in enumerate(steps):
        after = steps[number + 1] if number + 1 < len(steps) else None
        is_between = after is not None and after.operation.name in _IN_PLACE and last.get(step.name) == number + 1
        alive[step.name] = 0 if is_between else step.output.nbytes
        peak = max(peak, sum(alive.values()))
        if not is_between:  # what the first of such a row works on is needed until the last is done
            alive = {name: size for name, size in alive.items() if last.get(name, -1) > number}
    return Costs(sum(step.flops() for step in steps), peak + remembered)


def _step(number: int, node: Node, flows: Mapping[str, Flow], arrays: Mapping[str, np.ndarray], limits: Limits) -> Step:
    operation = OPERATIONS.get(node.op)
    if operation is None:
        known = ", ".join(sorted(OPERATIONS))
        raise Rejected(Code.UNKNOWN_OPERATION, f"node {number} is {quoted(node.op)}; the operations are {known}")
    where = f"node {number} ({node.op})"
    most = operation.values + len(operation.tensors)
    if not most - operation.optional <= len(node.inputs) <= most or len(node.outputs) != 1:
        wanted = f"{operation.values} values and {', '.join(operation.tensors) or 'no tensors'}"
        raise Rejected(Code.BAD_GRAPH, f"{where} has other inputs or outputs than {wanted} for one result")
    attributes = operation.checked(node.attributes, where)
    values, tensors = node.inputs[: operation.values], node.inputs[operation.values :]
    for name in values:
        if name not in flows:
            raise Rejected(Code.BAD_GRAPH, f"{where} works on {quoted(name)}, a tensor, and needs a value there")
    for name in tensors:
        if name not in arrays:
            raise Rejected(Code.BAD_GRAPH, f"{where} takes {quoted(name)}, a value, and needs a tensor there")
    given: list[np.ndarray | None] = [arrays[name] for name in tensors]
    given += [None] * (len(operation.tensors) - len(given))
    inputs = [flows[name] for name in values]
    try:
        output = operation.shape(inputs, given, attributes)
    except Rejected as rejected:
        raise Rejected(rejected.code, f"{where}: {rejected.message}") from None
    return Step(node, operation, given, attributes, inputs, _small(output, node.outputs[0], limits))


def _small(flow: Flow, name: str, limits: Limits) -> Flow:
    too_long = len(flow.shape) > limits.rank or any(size > limits.dimension for size in flow.shape)
    if too_long or math.prod(flow.shape) * 8 > 8 * limits.activation_bytes or flow.nbytes > limits.activation_bytes:
        raise Rejected(Code.TOO_LARGE, f"the value {quoted(name)} would be {flow.shape}, more than the limits allow")
    return flow
