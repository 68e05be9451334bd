"""Graphs that a submission must not be, each as a change to one that is right, with the code that refuses it."""

import importlib
from typing import Any

import numpy as np

from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.rejection import Code

graphs = importlib.import_module("tests.20_benchmarking.graphs")
attribute, given, inputs, node, nodes, of_node, part, put, renamed, replaced, tensor = (
    graphs.attribute,
    graphs.given,
    graphs.inputs,
    graphs.node,
    graphs.nodes,
    graphs.of_node,
    graphs.part,
    graphs.put,
    graphs.renamed,
    graphs.replaced,
    graphs.tensor,
)
Hostile = tuple[str, graphs.Change, Code]


def _row(count: int, op: str = "relu", tensors: str = "", **attributes: Any) -> list[dict[str, Any]]:
    """Return so many nodes, each on the result of the one before, from x."""
    return [node(op, f"{f'r{i - 1}' if i else 'x'} {tensors}", f"r{i}", **attributes) for i in range(count)]


_END = node("flatten", "r", "f"), node("linear", "f w", "y")
_KERNELS = graphs.numbers(64, 64, 3, 3)
_FIRST = graphs.numbers(64, 1, 3, 3)
_MANY = [node("conv2d", "x w1", "r", padding=1), *_row(180, "conv2d", "w", padding=1)]
_MANY[1]["inputs"][0] = "r"

_ONE = {"v": np.ones(1, np.float32), "i": np.zeros(1, np.uint8)}
_WIDE = np.ones(4001, np.int32)  # 4000 rows of no weight, but for the first, which has one
_WIDE[0] = 0
_CHANNELS = np.ones((500_000, 1, 1, 1), np.float32)
_WRAPPED = [0, 2**31 - 1, -(2**31), -1, *range(7), 30]  # each difference is above zero, in 32 bits


def _other_name(g: dict[str, Any], a: dict[str, np.ndarray]) -> None:
    g["inputs"][0]["name"], g["nodes"][0]["inputs"][0] = "image", "image"


def _alive() -> list[dict[str, Any]]:
    """Return nodes whose results, 2 megabytes each, are all needed at the end."""
    made = [node("conv2d", "x c", "a0", stride=28), *(node("relu", "a0", f"a{i}") for i in range(1, 50))]
    sums = [node("add", f"{f's{i - 1}' if i > 1 else 'a0'} a{i}", f"s{i}") for i in range(1, 50)]
    return [*made, *sums, node("conv2d", "s49 d", "z"), node("flatten", "z", "f"), node("linear", "f w", "y")]


def _growing(count: int) -> graphs.Change:
    """Put convolutions in front, each of which adds 128 to the height and the width."""

    def apply(g: dict[str, Any], a: dict[str, np.ndarray]) -> None:
        a["one"] = np.ones((1, 1, 1, 1), np.float32)
        g["nodes"] = [*_row(count, "conv2d", "one", padding=64), *g["nodes"]]
        inputs(count, f"r{count - 1} w b")(g, a)

    return apply


HOSTILE_GRAPHS: dict[str, Hostile] = {
    # the text
    "no text": ("floats", lambda g, a: "", Code.BAD_JSON),
    "no JSON": ("floats", lambda g, a: "{", Code.BAD_JSON),
    "a list": ("floats", lambda g, a: "[]", Code.BAD_JSON),
    "null": ("floats", lambda g, a: "null", Code.BAD_JSON),
    "a byte-order mark": ("floats", lambda g, a: "\ufeff{}", Code.BAD_JSON),
    "lists in lists": ("floats", lambda g, a: "[" * 10**5, Code.TOO_DEEP),
    "an attribute of objects in objects": ("floats", attribute(0, padding=[[[[[[1]]]]]]), Code.TOO_DEEP),
    "a key twice": ("floats", replaced('"op"', '"op": "relu", "op"'), Code.DUPLICATE_NAME),
    "an attribute that is NaN": ("codes", attribute(0, scale=float("nan")), Code.BAD_JSON),
    "an attribute without end": ("codes", replaced("0.01", "1e999"), Code.BAD_JSON),
    "an attribute of a thousand digits": ("floats", attribute(0, padding=10**1000), Code.BAD_JSON),
    # its parts
    "no outputs": ("floats", lambda g, a: g.pop("outputs") and None, Code.BAD_GRAPH),
    "a part more": ("floats", part("code", "import os"), Code.BAD_GRAPH),
    "an empty list of nodes": ("floats", part("nodes", []), Code.BAD_GRAPH),
    "nodes that are an object": ("floats", part("nodes", {"op": "relu"}), Code.BAD_GRAPH),
    "a node that is a text": ("floats", part("nodes", ["relu"]), Code.BAD_GRAPH),
    "a node that is a number": ("floats", lambda g, a: g["nodes"].append(5), Code.BAD_GRAPH),
    "a node of no inputs": ("floats", inputs(1, ""), Code.BAD_GRAPH),
    "a node with a part more": ("floats", of_node(0, "weights", "w"), Code.BAD_GRAPH),
    "an operation that is a number": ("floats", of_node(0, "op", 1), Code.BAD_GRAPH),
    "attributes that are a list": ("floats", of_node(1, "attributes", []), Code.BAD_GRAPH),
    "an input that is null": ("floats", of_node(1, "inputs", [None]), Code.BAD_GRAPH),
    "another format": ("floats", part("format", "tinymlperf/2"), Code.BAD_FORMAT),
    "a million nodes": ("floats", lambda g, a: f'{{"nodes":[{",".join(["{}"] * 10**6)}]}}', Code.TOO_LARGE),
    "a node too many": ("floats", lambda g, a: g.update(nodes=_row(Limits().nodes + 1)), Code.TOO_LARGE),
    "a node of too many inputs": ("floats", inputs(1, "a " * 65), Code.TOO_LARGE),
    # the competition
    "a task that is not there": ("floats", part("task", "image-generation"), Code.WRONG_TASK),
    "a task that is a path": ("floats", part("task", "../../etc"), Code.WRONG_TASK),
    "the graph of another task": ("floats", part("task", graphs.SNEAKERS), Code.WRONG_TASK),
    "the graph of images for texts": ("floats", part("task", graphs.TEXT), Code.WRONG_TASK),
    "a division that is not there": ("floats", part("division", "Closed"), Code.WRONG_DIVISION),
    # what flows where
    "a node on its own result": ("floats", inputs(1, "c"), Code.CYCLE),
    "a node on a later result": ("floats", inputs(1, "d"), Code.CYCLE),
    "a result of nothing": ("floats", inputs(1, "nothing"), Code.UNDEFINED),
    "two nodes of one result": ("floats", of_node(1, "outputs", ["a"]), Code.DUPLICATE_NAME),
    "a result named as a tensor": ("floats", of_node(0, "outputs", ["w"]), Code.DUPLICATE_NAME),
    "a result named as the input": ("floats", of_node(0, "outputs", ["x"]), Code.DUPLICATE_NAME),
    "an input twice": ("floats", lambda g, a: g.update(inputs=g["inputs"] * 2), Code.DUPLICATE_NAME),
    "an output twice": ("floats", part("outputs", ["y", "y"]), Code.DUPLICATE_NAME),
    "the input as output": ("floats", part("outputs", ["x"]), Code.UNDEFINED),
    "an output of nothing": ("floats", part("outputs", ["nothing"]), Code.UNDEFINED),
    "a tensor as output": ("floats", part("outputs", ["w"]), Code.UNDEFINED),
    "a tensor that nothing uses": ("floats", lambda g, a: a.update(stowaway=graphs.numbers(9)), Code.UNUSED),
    "a result that nothing uses": ("floats", lambda g, a: g["nodes"].append(node("relu", "a", "z")), Code.UNUSED),
    "two outputs": ("floats", part("outputs", ["y", "a"]), Code.WRONG_TASK),
    # names
    "an invisible letter": ("floats", renamed("a\u200b"), Code.BAD_NAME),
    "a letter of another alphabet": ("floats", renamed("\u0430"), Code.BAD_NAME),
    "a text turned around": ("floats", renamed("\u202ea"), Code.BAD_NAME),
    "half a letter": ("floats", renamed("\ud800"), Code.BAD_NAME),
    "a name that is a path": ("floats", renamed("../a"), Code.BAD_NAME),
    "a name of no letters": ("floats", renamed(""), Code.BAD_NAME),
    "a name of a million letters": ("floats", renamed("a" * 10**5), Code.BAD_NAME),
    "an operation in wide letters": ("floats", of_node(1, "op", "\uff52\uff45\uff4c\uff55"), Code.UNKNOWN_OPERATION),
    # operations
    "an operation that is not there": ("floats", of_node(1, "op", "exec"), Code.UNKNOWN_OPERATION),
    "an operation of many letters": ("floats", of_node(1, "op", "x" * 5000), Code.UNKNOWN_OPERATION),
    "an operation named as a method": ("floats", of_node(1, "op", "__class__"), Code.UNKNOWN_OPERATION),
    "no weight": ("floats", nodes(node("conv2d", "x", "y")), Code.BAD_GRAPH),
    "a tensor too many": ("floats", inputs(1, "a b"), Code.BAD_GRAPH),
    "a tensor to work on": (
        "floats", nodes(node("add", "x t", "r"), *_END, t=_FIRST, w=graphs.numbers(10, 784)), Code.BAD_GRAPH,
    ),
    "a value for a weight": (
        "floats", nodes(node("flatten", "x", "f"), node("linear", "f f", "y")), Code.BAD_GRAPH,
    ),
    "two results": ("floats", of_node(1, "outputs", ["c", "c2"]), Code.UNUSED),
    "two results that are used": (
        "floats", nodes({**node("relu", "x", "a"), "outputs": ["a", "b"]}, node("add", "a b", "y")), Code.BAD_GRAPH,
    ),
    "a stride of 0": ("floats", attribute(0, stride=0), Code.BAD_ATTRIBUTE),
    "a padding of -1": ("floats", attribute(0, padding=-1), Code.BAD_ATTRIBUTE),
    "a padding of 10^18": ("floats", attribute(0, padding=10**18), Code.BAD_ATTRIBUTE),
    "a window of 2^31": ("floats", attribute(2, kernel_size=2**31), Code.BAD_ATTRIBUTE),
    "a stride that is true": ("floats", attribute(0, stride=True), Code.BAD_ATTRIBUTE),
    "a stride that is a text": ("floats", attribute(0, stride="1"), Code.BAD_ATTRIBUTE),
    "a stride that is null": ("floats", attribute(0, stride=None), Code.BAD_ATTRIBUTE),
    "a stride that is a list": ("floats", attribute(0, stride=[1]), Code.BAD_ATTRIBUTE),
    "a stride that is 1.0": ("floats", attribute(0, stride=1.0), Code.BAD_ATTRIBUTE),
    "an attribute more": ("floats", attribute(1, slope=0.1), Code.BAD_ATTRIBUTE),
    "an attribute less": ("floats", lambda g, a: g["nodes"][2]["attributes"].clear(), Code.BAD_ATTRIBUTE),
    "a variance below zero": (
        "floats",
        nodes(
            node("batch_norm2d", "x o o o v", "r"), *_END,
            o=np.ones(1, np.float32), v=-np.ones(1, np.float32), w=graphs.numbers(10, 784),
        ),
        Code.BAD_VALUE,
    ),
    # shapes
    "an input of another shape": ("floats", given("shape", ["N", 3, 28, 28]), Code.WRONG_TASK),
    "an input of another dtype": ("floats", given("dtype", "float64"), Code.WRONG_TASK),
    "an input of exabytes": ("floats", given("shape", ["N", 2**60]), Code.BAD_SHAPE),
    "an input below zero": ("floats", given("shape", ["N", -1, 28, 28]), Code.BAD_SHAPE),
    "an input of unknown size": ("floats", given("shape", ["N", "M", 28, 28]), Code.BAD_SHAPE),
    "an input of a hundred axes": ("floats", given("shape", ["N"] * 9), Code.TOO_LARGE),
    "a window larger than the image": ("floats", attribute(2, kernel_size=29), Code.BAD_SHAPE),
    "a window that is not square": ("floats", tensor("w", lambda x: x[..., :2].copy()), Code.BAD_SHAPE),
    "a weight for other channels": ("floats", tensor("w", lambda x: np.repeat(x, 2, 1)), Code.BAD_SHAPE),
    "a weight for other features": ("floats", tensor("w2", lambda x: x[:, 1:].copy()), Code.BAD_SHAPE),
    "a bias for other outputs": ("floats", tensor("b", lambda x: x[1:].copy()), Code.BAD_SHAPE),
    "a bias for more outputs": ("floats", tensor("b", lambda x: np.repeat(x, 2)), Code.BAD_SHAPE),
    "a weight of no filters": ("floats", tensor("w", lambda x: x[:0]), Code.BAD_SHAPE),
    "a weight of halves": ("floats", tensor("w", lambda x: x.astype(np.int8)), Code.BAD_DTYPE),
    "one class less": ("floats", tensor("w2", lambda x: x[1:].copy()), Code.BAD_SHAPE),
    "nine classes": ("floats", nodes(node("relu", "x", "r"), *_END, w=graphs.numbers(9, 784)), Code.WRONG_TASK),
    "values of two shapes added": (
        "floats",
        nodes(node("flatten", "x", "a"), node("add", "x a", "r"), *_END, w=graphs.numbers(10, 784)),
        Code.BAD_SHAPE,
    ),
    "images that grow": ("floats", _growing(60), Code.TOO_LARGE),
    "a value of a hundred megabytes": (
        "floats",
        nodes(node("conv2d", "x k", "r", padding=64), *_END, k=np.ones((4096, 1, 1, 1), np.float32), w=_FIRST),
        Code.TOO_LARGE,
    ),
    "ten billion operations": (
        "floats",
        nodes(*_MANY, node("flatten", "r179", "f"), node("linear", "f o", "y"), w1=_FIRST, w=_KERNELS, o=_FIRST),
        Code.TOO_LARGE,
    ),
    # codes
    "a scale of 0": ("codes", attribute(0, scale=0), Code.BAD_ATTRIBUTE),
    "a scale below zero": ("codes", attribute(0, scale=-0.01), Code.BAD_ATTRIBUTE),
    "a scale next to zero": ("codes", attribute(0, scale=1e-45), Code.BAD_ATTRIBUTE),
    "a scale beyond 32 bits": ("codes", attribute(0, scale=1e200), Code.BAD_ATTRIBUTE),
    "a zero point of 256": ("codes", attribute(0, zero_point=256), Code.BAD_ATTRIBUTE),
    "a zero point beyond two bits": ("codes", attribute(1, bits=2), Code.BAD_ATTRIBUTE),
    "codes of 9 bits": ("codes", attribute(0, bits=9), Code.BAD_ATTRIBUTE),
    "a pooling by 0": ("codes", attribute(1, pool=0), Code.BAD_ATTRIBUTE),
    "a pooling that leaves nothing": ("codes", attribute(1, pool=64), Code.BAD_SHAPE),
    "relu on numbers that were codes": ("codes", attribute(3, relu=True), Code.BAD_ATTRIBUTE),
    "a weight's scale of 0": ("codes", put("s", 0, 0), Code.BAD_VALUE),
    "a weight's scale below zero": ("codes", put("s", 1, -0.01), Code.BAD_VALUE),
    "a weight's scale of NaN": ("codes", put("s", 2, np.nan), Code.NOT_FINITE),
    "sums beyond 32 bits": ("codes", put("b", 0, 2**31 - 1), Code.BAD_VALUE),
    "numbers for codes": ("codes", inputs(1, "x w s b"), Code.UNUSED),
    "numbers for codes, nothing left over": (
        "codes", lambda g, a: (g["nodes"].pop(0), inputs(0, "x w s b")(g, a))[1], Code.BAD_DTYPE,
    ),
    "codes for numbers": ("codes", of_node(2, "op", "relu"), Code.BAD_DTYPE),
    "codes as output": ("codes", attribute(3, floats=False), Code.WRONG_TASK),
    "weights of whole bytes": ("codes", tensor("w", lambda x: x.view(np.uint8)), Code.BAD_DTYPE),
    # zeros left out: compiled kernels trust these indices
    "an index below zero": ("zeros", put("i", 0, -1), Code.BAD_INDEX),
    "an index behind the end": ("zeros", put("i", 2, 9), Code.BAD_INDEX),
    "an index far behind the end": ("zeros", put("i", 2, 2**31 - 1), Code.BAD_INDEX),
    "an index behind the features": ("zeros", put("i2", 2, 784), Code.BAD_INDEX),
    "indices that fall": ("zeros", tensor("i", lambda x: x[::-1].copy()), Code.BAD_INDEX),
    "indices of 16 bits that fall": ("zeros", tensor("i2", lambda x: x[::-1].copy()), Code.BAD_INDEX),
    "an index twice": ("zeros", put("i", 1, 0), Code.BAD_INDEX),
    "an index of 64 bits": ("zeros", tensor("i", lambda x: x.astype(np.int64)), Code.BAD_DTYPE),
    "an index less": ("zeros", tensor("i", lambda x: x[1:].copy()), Code.BAD_SHAPE),
    "rows that begin behind the first": ("zeros", put("p", 0, 1), Code.BAD_INDEX),
    "rows that begin before the first": ("zeros", put("p", 0, -(2**31)), Code.BAD_INDEX),
    "rows that end before the last": ("zeros", put("p", -1, 11), Code.BAD_INDEX),
    "rows that end behind the last": ("zeros", put("p", -1, 13), Code.BAD_INDEX),
    "rows that go back": ("zeros", put("p", 1, 7), Code.BAD_INDEX),
    "no rows": ("zeros", tensor("p", lambda x: x[:1].copy()), Code.BAD_SHAPE),
    "a kernel of other columns": ("zeros", attribute(0, kernel_size=2), Code.BAD_INDEX),
    # language
    "a task of images with a table": ("floats", of_node(1, "op", "embedding"), Code.BAD_GRAPH),
    "images looked up": ("floats", nodes(node("embedding", "x e", "y"), e=_FIRST), Code.BAD_DTYPE),
    "a table of whole numbers": ("text", tensor("p", lambda x: x.astype(np.int8)), Code.BAD_DTYPE),
    "a table of too few positions": ("text", tensor("p", lambda x: x[:255].copy()), Code.BAD_SHAPE),
    "heads that do not divide the width": ("text", attribute(4, num_heads=3), Code.BAD_ATTRIBUTE),
    "heads of keys that do not divide": ("text", attribute(4, num_kv_heads=3), Code.BAD_ATTRIBUTE),
    "heads of keys that the weight has not": ("text", attribute(4, num_kv_heads=2), Code.BAD_SHAPE),
    "no heads": ("text", attribute(4, num_heads=0), Code.BAD_ATTRIBUTE),
    "a cache that is not there": ("text", attribute(4, cache="paged"), Code.BAD_ATTRIBUTE),
    "a window of nothing": ("text", attribute(4, window=0), Code.BAD_ATTRIBUTE),
    "a window of a million": ("text", attribute(4, window=10**6), Code.BAD_ATTRIBUTE),
    "scores of fewer tokens": (
        "text", nodes(node("embedding", "ids e", "y"), e=graphs.numbers(graphs.VOCABULARY, 9)), Code.WRONG_TASK,
    ),
    # each would need memory without end, fail in its run, or cost other than is counted
    "rows that go back in 32 bits": (
        "zeros", lambda g, a: a.update(p2=np.array(_WRAPPED, np.int32)), Code.BAD_INDEX,
    ),
    "zeros of half a terabyte": (
        "zeros",
        nodes(
            node("sparse_conv2d", "x v i p", "a", kernel_size=28),
            node("sparse_conv2d", "a v i p", "r", kernel_size=64, padding=32, stride=64),
            node("flatten", "r", "f"), node("sparse_linear", "f v i q", "y"),
            **_ONE, p=_WIDE, q=_WIDE[:11],
        ),
        Code.TOO_LARGE,
    ),
    "a padding of 31 gigabytes": (
        "floats",
        nodes(
            node("conv2d", "x c", "a", stride=28), node("conv2d", "a d", "r", stride=64, padding=64), *_END,
            c=_CHANNELS, d=_CHANNELS.reshape(1, -1, 1, 1), w=graphs.numbers(10, 9),
        ),
        Code.TOO_LARGE,
    ),
    "values that are too large together": (
        "floats",
        nodes(*_alive(), c=_CHANNELS, d=_CHANNELS.reshape(1, -1, 1, 1), w=graphs.numbers(10, 1)), Code.TOO_LARGE,
    ),
    "an input of another name": ("floats", _other_name, Code.WRONG_TASK),
    "a table of too few tokens": (
        "text", lambda g, a: (inputs(7, "k w")(g, a), a.update(w=a["e"], e=a["e"][:5].copy())), Code.BAD_SHAPE,
    ),
    "caches of two kinds": ("text", attribute(4, cache="int8"), Code.BAD_ATTRIBUTE),
    "windows of two sizes": (
        "text",
        lambda g, a: (attribute(4, cache="window", window=256)(g, a), attribute(5, cache="window", window=1)(g, a)),
        Code.BAD_ATTRIBUTE,
    ),
    "heads of keys of two numbers": (
        "text",
        lambda g, a: (
            attribute(4, num_kv_heads=2)(g, a), inputs(4, "f jw jb ow ob")(g, a),
            a.update(jw=graphs.numbers(24, 8), jb=graphs.numbers(24)),
        ),
        Code.BAD_ATTRIBUTE,
    ),
}  # fmt: skip


def built(name: str) -> bytes:
    """Return the bytes of the file with a hostile graph."""
    kind, change, _ = HOSTILE_GRAPHS[name]
    whole, arrays = graphs.KINDS[kind]()
    changed = change(whole, arrays)
    return graphs.packed(changed if isinstance(changed, str) else whole, arrays)
