"""Small graphs of every kind that are right, and the means to open, to change and to run them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch import nn
from tinytorch.benchmarks.tinymlperf import file
from tinytorch.benchmarks.tinymlperf.execution import Program
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.benchmarks.tinymlperf.submission import KEY, Submission
from tinytorch.benchmarks.tinymlperf.tasks import TASKS
from tinytorch.quantization import quantize_dynamic

IMAGES, SNEAKERS, TEXT = "image-classification", "anomaly-detection", "language-model"
VOCABULARY = TASKS[TEXT].output.shape[2]
FLOATS, WHOLE = np.float32, np.int32

Changeable = tuple[dict[str, Any], dict[str, np.ndarray]]
Change = Callable[[dict[str, Any], dict[str, np.ndarray]], Any]  # returns a text, if no object can say it


def node(op: str, inputs: str, output: str, **attributes: Any) -> dict[str, Any]:
    """Return a node; the names of its inputs stand in one text, with spaces between."""
    return {"op": op, "inputs": inputs.split(), "outputs": [output], "attributes": attributes}


def graph(task: str, *nodes: dict[str, Any]) -> dict[str, Any]:
    """Return a graph whose output is y."""
    given = TASKS[task].input
    return {
        "format": "tinymlperf/1",
        "task": task,
        "division": "open",
        "inputs": [{"name": given.name, "dtype": given.dtype, "shape": list(given.shape)}],
        "nodes": list(nodes),
        "outputs": ["y"],
    }


def numbers(*shape: int) -> np.ndarray:
    """Return the same small numbers for the same shape."""
    return np.random.default_rng(len(shape)).normal(0, 0.1, shape).astype(FLOATS)


def floats() -> Changeable:
    """Return a convolution with all that a plan takes with it, and a linear layer."""
    nodes = (
        node("conv2d", "x w b", "a", padding=1),
        node("relu", "a", "c"),
        node("max_pool2d", "c", "d", kernel_size=2, stride=2),
        node("flatten", "d", "e"),
        node("linear", "e w2 b2", "y"),
    )
    return graph(IMAGES, *nodes), {
        "w": numbers(4, 1, 3, 3), "b": numbers(4), "w2": numbers(10, 784), "b2": numbers(10),
    }  # fmt: skip


def codes() -> Changeable:
    """Return layers on codes of 8 bits."""
    nodes = (
        node("quantize", "x", "a", scale=0.01, zero_point=3),
        node("qconv2d", "a w s b", "c", scale=0.02, zero_point=9, padding=1, pool=2, relu=True),
        node("flatten", "c", "d"),
        node("qlinear", "d w2 s2 b2", "y", floats=True),
    )
    rng = np.random.default_rng(0)
    return graph(IMAGES, *nodes), {
        "w": rng.integers(-127, 128, (4, 1, 3, 3), np.int8), "s": np.full(4, 0.01, FLOATS), "b": np.zeros(4, WHOLE),
        "w2": rng.integers(-127, 128, (10, 784), np.int8), "s2": np.full(10, 0.01, FLOATS), "b2": np.zeros(10, WHOLE),
    }  # fmt: skip


def zeros() -> Changeable:
    """Return layers that store three weights for each of their outputs."""
    nodes = (
        node("sparse_conv2d", "x v i p", "a", kernel_size=3, padding=1),
        node("relu", "a", "c"),
        node("avg_pool2d", "c", "d", kernel_size=2, stride=2),
        node("flatten", "d", "e"),
        node("sparse_linear", "e v2 i2 p2 b2", "y"),
    )
    places = np.array([0, 4, 8])
    return graph(IMAGES, *nodes), {
        "v": numbers(12), "i": np.tile(places, 4).astype(np.int32), "p": np.arange(0, 15, 3, WHOLE),
        "v2": numbers(30), "i2": np.tile(places * 97, 10).astype(np.uint16), "p2": np.arange(0, 33, 3, WHOLE),
        "b2": numbers(10),
    }  # fmt: skip


def text() -> Changeable:
    """Return a language model that is no GPT: it is done node by node."""
    nodes = (
        node("embedding", "ids e", "a"),
        node("positions", "ids p", "c"),
        node("add", "a c", "d"),
        node("layer_norm", "d g b", "f"),
        node("attention", "f iw ib ow ob", "h", num_heads=2, num_kv_heads=1),
        node("attention", "h iw ib ow ob", "j", num_heads=2, num_kv_heads=1),
        node("add", "d j", "k"),
        node("linear", "k e", "y"),
    )
    return graph(TEXT, *nodes), {
        "e": numbers(VOCABULARY, 8), "p": numbers(256, 8), "g": numbers(8), "b": numbers(8),
        "iw": numbers(16, 8), "ib": numbers(16), "ow": numbers(8, 8), "ob": numbers(8),
    }  # fmt: skip


def gpt(change: Callable[[nn.Module], nn.Module] = lambda model: model) -> Changeable:
    """Return a language model that is an `nn.GPT`, or what is made of one: it is done whole."""
    model = nn.GPT(VOCABULARY, 8, 1, 2, 256, np.random.default_rng(0)).eval()
    exported = export(change(model), TEXT, division="open")
    return json.loads(exported.graph.to_json()), dict(exported.arrays)


def rounded() -> Changeable:
    """Return a GPT that rounds what comes into its linear layers."""
    return gpt(quantize_dynamic)


KINDS = {"floats": floats, "codes": codes, "zeros": zeros, "text": text, "gpt": gpt, "rounded": rounded}


# Changes to one that is right


def attribute(number: int, **changed: Any) -> Change:
    return lambda g, a: g["nodes"][number]["attributes"].update(changed)


def inputs(number: int, names: str) -> Change:
    return lambda g, a: g["nodes"][number].update(inputs=names.split())


def part(key: str, value: Any) -> Change:
    return lambda g, a: g.update({key: value})


def of_node(number: int, key: str, value: Any) -> Change:
    return lambda g, a: g["nodes"][number].update({key: value})


def given(key: str, value: Any) -> Change:
    return lambda g, a: g["inputs"][0].update({key: value})


def tensor(name: str, change: Callable[[np.ndarray], Any]) -> Change:
    """Replace a tensor by what a function makes of a copy of it, or of the copy that it has written to."""

    def apply(g: dict[str, Any], a: dict[str, np.ndarray]) -> None:
        copy = a[name].copy()
        found = change(copy)
        a[name] = found if isinstance(found, np.ndarray) else copy

    return apply


def put(name: str, place: int, value: float) -> Change:
    return tensor(name, lambda x: x.reshape(-1).__setitem__(place, value))


def nodes(*new: dict[str, Any], **tensors: np.ndarray) -> Change:
    """Replace all nodes, and all tensors."""

    def apply(g: dict[str, Any], a: dict[str, np.ndarray]) -> None:
        a.clear()
        a.update(tensors)
        g["nodes"] = list(new)

    return apply


def replaced(old: str, new: str) -> Change:
    return lambda g, a: json.dumps(g).replace(old, new, 1)


def renamed(name: str) -> Change:
    """Give the first node's result another name, and use it."""

    def apply(g: dict[str, Any], a: dict[str, np.ndarray]) -> None:
        g["nodes"][0]["outputs"], g["nodes"][1]["inputs"] = [name], [name]

    return apply


def opened(path: Path, whole: dict[str, Any] | str, arrays: dict[str, np.ndarray]) -> Submission:
    """Write a file, which nothing of ours checks before, and open it."""
    path.write_bytes(packed(whole, arrays))
    return Submission.open(path)


def packed(whole: dict[str, Any] | str, arrays: dict[str, np.ndarray]) -> bytes:
    """Return the bytes of a file with a graph, or with any text in its place."""
    return file.pack({KEY: whole if isinstance(whole, str) else json.dumps(whole)}, arrays)


def run(submission: Submission) -> list[np.ndarray]:
    """Return what a submission makes of two samples; a language model is made to go on, too."""
    program = Program(submission.graph, submission.arrays)
    given = TASKS[submission.task].input
    if given.dtype == "int64":
        ids = np.random.default_rng(1).integers(0, VOCABULARY, (2, 16))
        return [*program.run({given.name: ids}), program.generate(ids[:, :4], 3)]
    return program.run({given.name: images()})


def images() -> np.ndarray:
    """Return two images of noise."""
    return np.random.default_rng(1).random((2, 1, 28, 28)).astype(FLOATS)
