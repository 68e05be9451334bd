"""A submission's graph: which operation follows which, as JSON that anybody can read.

    {"format": "tinymlperf/1", "task": "image-classification", "division": "closed",
     "inputs": [{"name": "x", "dtype": "float32", "shape": ["N", 1, 28, 28]}],
     "nodes": [{"op": "relu", "inputs": ["x"], "outputs": ["y"], "attributes": {}}],
     "outputs": ["y"]}

A node's inputs are first the values it works on, inputs of the graph or outputs of earlier nodes, then tensors of the
file. There is no code in it, and no loop: each node is done once, in the order of the list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tinytorch.benchmarks.tinymlperf.file import check_name
from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected, quoted
from tinytorch.benchmarks.tinymlperf.strict_json import parse_json

FORMAT = "tinymlperf/1"
DIVISIONS = ("closed", "open")
SYMBOLS = ("N", "T")  # the batch, the positions of a text
_TASK = re.compile(r"[a-z]+(-[a-z]+)*")

AttributeValue = int | float | bool | str


@dataclass(frozen=True)
class Spec:
    """An input or output: its name, dtype and shape; sizes are numbers, "N" for the batch or "T" for the positions."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Node:
    """One operation: its name, the names of values and tensors that it takes and gives, and its settings."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True)
class Graph:
    """What a submission computes, for which task and by which rules.

    Attributes
    ----------
    task, division
        By name; the division is "closed" or "open".
    inputs
        What comes in.
    nodes
        Operations, each behind those whose values it takes.
    outputs
        The names of the values that go out.
    """

    task: str
    division: str
    inputs: tuple[Spec, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    def to_json(self) -> str:
        """Return the graph as text; equal graphs give equal texts."""
        whole = {
            "format": FORMAT,
            "task": self.task,
            "division": self.division,
            "inputs": [{"name": i.name, "dtype": i.dtype, "shape": list(i.shape)} for i in self.inputs],
            "nodes": [
                {"op": n.op, "inputs": list(n.inputs), "outputs": list(n.outputs), "attributes": dict(n.attributes)}
                for n in self.nodes
            ],
            "outputs": list(self.outputs),
        }
        return json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, tensors: Collection[str], limits: Limits | None = None) -> Graph:
        """Read a graph over named tensors, and check names and order.

        Raises
        ------
        Rejected
            If a part is missing, unknown or of the wrong kind; if a name is used twice, or used and not defined; if
            there are more nodes, inputs or outputs than the limits allow; if a tensor or value is not used.
        """
        limits = limits or Limits()
        whole = parse_json(text, limits, "the graph")
        _keys(whole, ("format", "task", "division", "inputs", "nodes", "outputs"), "the graph")
        if whole["format"] != FORMAT:
            raise Rejected(Code.BAD_FORMAT, f"the graph's format is not {FORMAT!r}: export it with this version")
        task = _text(whole["task"], "the task")
        if not _TASK.fullmatch(task) or len(task) > limits.name_length:
            raise Rejected(Code.WRONG_TASK, f"{quoted(task)} is no name of a task")
        division = _text(whole["division"], "the division")
        if division not in DIVISIONS:
            raise Rejected(Code.WRONG_DIVISION, f"{quoted(division)} is no division: {' or '.join(DIVISIONS)}")
        inputs = tuple(_input(entry, limits) for entry in _list(whole["inputs"], "inputs", limits.node_values))
        nodes = tuple(_node(entry, limits) for entry in _list(whole["nodes"], "nodes", limits.nodes))
        outputs = _names(whole["outputs"], "the graph's outputs", limits)
        graph = cls(task, division, inputs, nodes, outputs)
        _check_flow(graph, tensors)
        return graph


def _check_flow(graph: Graph, tensors: Collection[str]) -> None:
    known, values, used = set(tensors), set[str](), set[str]()
    later = {name for node in graph.nodes for name in node.outputs}

    def define(name: str) -> None:
        if name in known:
            raise Rejected(Code.DUPLICATE_NAME, f"{quoted(name)} is defined twice")
        known.add(name)
        values.add(name)

    for each in graph.inputs:
        define(each.name)
    for number, node in enumerate(graph.nodes):
        for name in node.inputs:
            if name not in known:
                if name in later:
                    raise Rejected(
                        Code.CYCLE, f"node {number} ({node.op}) uses {quoted(name)}, which it or a later node makes"
                    )
                raise Rejected(Code.UNDEFINED, f"node {number} ({node.op}) uses {quoted(name)}, which nothing defines")
            used.add(name)
        for name in node.outputs:
            define(name)
    if len(set(graph.outputs)) != len(graph.outputs):
        raise Rejected(Code.DUPLICATE_NAME, "the graph returns one value twice")
    for name in graph.outputs:
        if name not in values or name in {each.name for each in graph.inputs}:
            raise Rejected(Code.UNDEFINED, f"the graph returns {quoted(name)}, which no node makes")
        used.add(name)
    if unused := sorted((known | set(tensors)) - used):
        raise Rejected(
            Code.UNUSED, f"nothing uses {quoted(unused[0])}" + f" and {len(unused) - 1} more" * (len(unused) > 1)
        )


def _input(entry: Any, limits: Limits) -> Spec:
    _keys(entry, ("name", "dtype", "shape"), "an input")
    name = check_name(_text(entry["name"], "an input's name"), limits)
    shape = _list(entry["shape"], f"the shape of {name}", limits.rank)
    for size in shape:
        if not (size in SYMBOLS if isinstance(size, str) else _is_count(size, limits.dimension)):
            raise Rejected(Code.BAD_SHAPE, f"the shape of {name} has a size that is no number, 'N' or 'T'")
    return Spec(name, _text(entry["dtype"], f"the dtype of {name}"), tuple(shape))


def _node(entry: Any, limits: Limits) -> Node:
    _keys(entry, ("op", "inputs", "outputs", "attributes"), "a node")
    op, attributes = _text(entry["op"], "an operation"), entry["attributes"]
    if not isinstance(attributes, dict) or len(attributes) > limits.node_values:
        raise Rejected(Code.BAD_GRAPH, f"the attributes of a node {quoted(op)} are no object, or too many")
    for name, value in attributes.items():
        if not isinstance(value, int | float | str) or (isinstance(value, str) and len(value) > limits.name_length):
            raise Rejected(
                Code.BAD_ATTRIBUTE, f"attribute {quoted(name)} of {quoted(op)} is no number and no short text"
            )
    inputs = _names(entry["inputs"], f"the inputs of {quoted(op)}", limits)
    return Node(op, inputs, _names(entry["outputs"], f"the outputs of {quoted(op)}", limits), attributes)


def _names(entry: Any, what: str, limits: Limits) -> tuple[str, ...]:
    names = _list(entry, what, limits.node_values)
    return tuple(check_name(_text(name, f"one of {what}"), limits) for name in names)


def _keys(entry: Any, keys: tuple[str, ...], what: str) -> None:
    if not isinstance(entry, dict):
        raise Rejected(Code.BAD_GRAPH, f"{what} is no object")
    if wrong := sorted(set(entry) ^ set(keys)):
        problem = "lacks" if wrong[0] in keys else "has an unknown part"
        raise Rejected(Code.BAD_GRAPH, f"{what} {problem} {quoted(wrong[0])}")


def _list(entry: Any, what: str, most: int) -> list[Any]:
    if not isinstance(entry, list) or not entry:
        raise Rejected(Code.BAD_GRAPH, f"{what} is no list, or an empty one")
    if len(entry) > most:
        raise Rejected(Code.TOO_LARGE, f"{what}: {len(entry):,} of them, and {most:,} are allowed")
    return entry


def _text(entry: Any, what: str) -> str:
    if not isinstance(entry, str):
        raise Rejected(Code.BAD_GRAPH, f"{what} is no text")
    return entry


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
