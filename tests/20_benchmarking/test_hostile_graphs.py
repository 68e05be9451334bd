"""Graphs that are wrong, each refused with its code before anything is allocated or run; and a fuzz of good ones."""

import copy
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import nn, zoo
from tinytorch.benchmarks.tinymlperf import file
from tinytorch.benchmarks.tinymlperf.execution import Program
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.benchmarks.tinymlperf.graph import Graph
from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.making import made
from tinytorch.benchmarks.tinymlperf.operations import OPERATIONS
from tinytorch.benchmarks.tinymlperf.rejection import Rejected
from tinytorch.benchmarks.tinymlperf.submission import KEY, Submission

resource = pytest.importorskip("resource", reason="memory is counted as Unix does")
IMAGES = "image-classification"


def small() -> Submission:
    rng = np.random.default_rng(0)
    layers = (
        nn.Conv2d(1, 3, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(147, 10, rng=rng),
    )
    return export(nn.Sequential(*layers).eval(), IMAGES)


BASES = {
    "floats": small(),
    "codes": export(*made("reference_cnn", bits=8)),
    "zeros": export(*made("reference_cnn", sparsity=0.9)),
    "text": export(zoo.load("char_gpt"), "language-model"),
}


def opened(whole, arrays, tmp_path) -> Submission:
    """Write a file with this graph, and open it."""
    text = whole if isinstance(whole, str) else json.dumps(whole)
    path = tmp_path / "sub.safetensors"
    path.write_bytes(file.pack({KEY: text}, arrays))
    return Submission.open(path)


def parts(base: str):
    submission = BASES[base]
    return json.loads(submission.graph.to_json()), {name: np.array(a) for name, a in submission.arrays.items()}


def node(whole, op):
    return next(n for n in whole["nodes"] if n["op"] == op)


def deeper(whole, arrays):
    inner = 1
    for _ in range(50):
        inner = [inner]
    whole["nodes"][0]["attributes"]["stride"] = inner


def many(whole, arrays):
    first = node(whole, "relu")
    whole["nodes"] = [
        *whole["nodes"][:1],
        *({**first, "inputs": [f"r{i}"], "outputs": [f"r{i + 1}"]} for i in range(2000)),
    ]


def chain(count):
    """Doubling the positions of zeros again and again."""

    def change(whole, arrays):
        conv = node(whole, "conv2d")
        conv["attributes"]["padding"] = 64
        grown = [copy.deepcopy(conv) for _ in range(count)]
        arrays["one"] = np.ones((1, 1, 1, 1), np.float32)
        for i, each in enumerate(grown):
            each.update(inputs=["x" if i == 0 else f"g{i - 1}", "one"], outputs=[f"g{i}"])
        conv["inputs"][0] = f"g{count - 1}"
        whole["nodes"] = [*grown, *whole["nodes"]]

    return change


def first_node(inputs, without):
    """Give the first node other inputs, and leave out tensors that it no longer uses."""

    def change(whole, arrays):
        whole["nodes"][0].update(inputs=inputs)
        for name in without:
            del arrays[name]

    return change


def two_results(whole, arrays):
    whole["nodes"][1].update(outputs=["v1", "w"])
    whole["outputs"].append("w")


def setting(op, name, value):
    return lambda whole, arrays: node(whole, op)["attributes"].__setitem__(name, value)


def array(name, change):
    def apply(whole, arrays):
        arrays[name] = change(arrays[name])

    return apply


def with_value(place, value):
    def change(a):
        a = a.copy()
        a.reshape(-1)[place] = value
        return a

    return change


def key(name, value):
    return lambda whole, arrays: whole.__setitem__(name, value)


HOSTILE = {
    "a node that uses its own output": ("floats", lambda w, a: w["nodes"][1].update(inputs=["v1"]), "cycle"),
    "a node that uses a later one": ("floats", lambda w, a: w["nodes"][1].update(inputs=["v3"]), "cycle"),
    "a value that nothing makes": ("floats", lambda w, a: w["nodes"][1].update(inputs=["v99"]), "undefined"),
    "an output that nothing makes": ("floats", key("outputs", ["v99"]), "undefined"),
    "the input as output": ("floats", key("outputs", ["x"]), "undefined"),
    "an output twice": ("floats", key("outputs", ["v4", "v4"]), "duplicate-name"),
    "a value made twice": ("floats", lambda w, a: w["nodes"][1].update(outputs=["v0"]), "duplicate-name"),
    "a value named as a tensor": ("floats", lambda w, a: w["nodes"][1].update(outputs=["0.weight"]), "duplicate-name"),
    "an operation not in the list": ("floats", lambda w, a: w["nodes"][1].update(op="eval"), "unknown-operation"),
    "an operation with a long name": ("floats", lambda w, a: w["nodes"][1].update(op="x" * 5000), "unknown-operation"),
    "a name that leads elsewhere": ("floats", lambda w, a: w["nodes"][1].update(outputs=["../../x"]), "bad-name"),
    "a name in other letters": ("floats", lambda w, a: w["nodes"][1].update(outputs=["v\u0430"]), "bad-name"),
    "a name that turns the line": ("floats", lambda w, a: w["nodes"][1].update(outputs=["v\u202e1"]), "bad-name"),
    "too many inputs": ("floats", lambda w, a: w["nodes"][1].update(inputs=["v0", "x"]), "bad-graph"),
    "too few inputs": ("floats", first_node(["x"], ["0.weight", "0.bias"]), "bad-graph"),
    "no inputs": ("floats", lambda w, a: w["nodes"][1].update(inputs=[]), "bad-graph"),
    "two results": ("floats", two_results, "bad-graph"),
    "a tensor for a value": ("floats", first_node(["0.bias", "x", "0.weight"], []), "bad-graph"),
    "a value for a tensor": ("floats", first_node(["x", "x", "0.bias"], ["0.weight"]), "bad-graph"),
    "an unknown part": ("floats", key("code", "import os"), "bad-graph"),
    "a part too few": ("floats", lambda w, a: w.pop("nodes"), "bad-graph"),
    "no nodes": ("floats", key("nodes", []), "bad-graph"),
    "nodes that are no list": ("floats", key("nodes", {"0": "relu"}), "bad-graph"),
    "a node that is no object": ("floats", lambda w, a: w["nodes"].append(5), "bad-graph"),
    "another format": ("floats", key("format", "tinymlperf/2"), "bad-format"),
    "another task": ("floats", key("task", "speech"), "wrong-task"),
    "a task that is a path": ("floats", key("task", "../secrets"), "wrong-task"),
    "another task's input": ("floats", key("task", "language-model"), "wrong-task"),
    "another division": ("floats", key("division", "won"), "wrong-division"),
    "another shape of the input": ("floats", lambda w, a: w["inputs"][0].update(shape=["N", 1, 8, 8]), "wrong-task"),
    "an input of a billion": ("floats", lambda w, a: w["inputs"][0].update(shape=["N", 10**12]), "bad-shape"),
    "a letter that is no size": ("floats", lambda w, a: w["inputs"][0].update(shape=["Q", 1]), "bad-shape"),
    "stride 0": ("floats", setting("conv2d", "stride", 0), "bad-attribute"),
    "negative padding": ("floats", setting("conv2d", "padding", -1), "bad-attribute"),
    "padding of a billion": ("floats", setting("conv2d", "padding", 10**9), "bad-attribute"),
    "a stride that is true": ("floats", setting("conv2d", "stride", True), "bad-attribute"),
    "a stride that is a text": ("floats", setting("conv2d", "stride", "1"), "bad-attribute"),
    "an unknown attribute": ("floats", setting("relu", "path", "/etc"), "bad-attribute"),
    "an attribute too few": ("floats", lambda w, a: node(w, "max_pool2d")["attributes"].clear(), "bad-attribute"),
    "a window larger than the image": ("floats", setting("max_pool2d", "kernel_size", 60), "bad-shape"),
    "a list for an attribute": ("floats", setting("conv2d", "stride", [1]), "bad-attribute"),
    "lists in lists in lists": ("floats", deeper, "too-deep"),
    "two thousand nodes": ("floats", many, "too-large"),
    "images that grow": ("floats", chain(60), "too-large"),
    "a stowaway": ("floats", lambda w, a: a.__setitem__("mine", np.zeros(3, np.float32)), "unused"),
    "a node whose result nobody uses": (
        "floats", lambda w, a: w["nodes"].append({**w["nodes"][1], "outputs": ["unused"]}), "unused",
    ),
    "weights of another shape": ("floats", array("0.weight", lambda a: a[:, :, :, :2]), "bad-shape"),
    "weights of another type": ("floats", array("0.weight", lambda a: a.astype(np.int32)), "bad-dtype"),
    "a bias too long": ("floats", array("0.bias", lambda a: np.ones(9, np.float32)), "bad-shape"),
    "weights that are NaN": ("floats", array("0.weight", with_value(0, np.nan)), "not-finite"),
    "a scale of zero": ("codes", array("0.weight_scale", with_value(0, 0)), "bad-value"),
    "a scale below zero": ("codes", array("0.weight_scale", with_value(0, -1)), "bad-value"),
    "sums beyond 32 bits": ("codes", array("0.bias", with_value(0, 2**31 - 1)), "bad-value"),
    "a zero point that is no code": ("codes", setting("quantize", "zero_point", 300), "bad-attribute"),
    "a scale that is infinite": ("codes", setting("quantize", "scale", 1e200), "bad-attribute"),
    "no codes": ("codes", lambda w, a: (w["nodes"].pop(0), w["nodes"][0]["inputs"].__setitem__(0, "x")), "bad-dtype"),
    "an index beyond the row": ("zeros", array("1.indices", with_value(-1, 200)), "bad-index"),
    "indices out of order": ("zeros", array("1.indices", lambda a: a[::-1].copy()), "bad-index"),
    "rows that end beyond the weights": ("zeros", array("1.indptr", with_value(-1, 10**6)), "bad-index"),
    "rows that end before they begin": ("zeros", array("1.indptr", with_value(1, 10**6)), "bad-index"),
    "rows that begin before the weights": ("zeros", array("1.indptr", with_value(0, -5)), "bad-index"),
    "heads that do not divide": ("text", setting("attention", "num_heads", 7), "bad-attribute"),
    "no heads": ("text", setting("attention", "num_heads", 0), "bad-attribute"),
    "another kind of cache": ("text", setting("attention", "cache", "redis"), "bad-attribute"),
    "too few positions": ("text", array("positions.weight", lambda a: a[:100].copy()), "bad-shape"),
}  # fmt: skip


@pytest.mark.parametrize(("base", "change", "code"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_graph_is_refused_at_once(base, change, code, tmp_path):
    whole, arrays = parts(base)
    change(whole, arrays)
    path = tmp_path / "sub.safetensors"
    path.write_bytes(file.pack({KEY: json.dumps(whole)}, arrays))
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Rejected) as caught:
        Submission.open(path)
    assert caught.value.code == code
    assert time.process_time() - start < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"a": 1, "a": 2}', '{"a": NaN}', "\ufeff{}"])
def test_a_text_that_is_no_graph_is_refused(text):
    with pytest.raises(Rejected):
        Graph.from_json(text, [])


@pytest.mark.parametrize("base", BASES)
def test_a_graph_is_written_and_read_as_it_was(base):
    submission = BASES[base]
    again = Graph.from_json(submission.graph.to_json(), submission.arrays)
    assert again == submission.graph
    assert again.to_json() == submission.graph.to_json()


def test_a_run_that_takes_too_long_is_refused_before_it_begins(tmp_path):
    path = BASES["floats"].save(tmp_path / "sub.safetensors")
    with pytest.raises(Rejected, match=r"too-large.*operations"):
        Submission.open(path, Limits(flops=1000))


SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=8)
NAMES = st.sampled_from(["x", "v0", "v1", "v4", "0.weight", "4.weight", "4.bias", "new", ""])
OPS = st.sampled_from([*OPERATIONS, "exec"])


def mutated(draw, value):
    """Change one thing somewhere in a JSON value."""
    if isinstance(value, dict) and value:
        name = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 5)) == 0:
            return {k: v for k, v in value.items() if k != name}
        changed = draw(OPS) if name == "op" and draw(st.booleans()) else mutated(draw, value[name])
        return {**value, name: changed}
    if isinstance(value, list) and value:
        place, how = draw(st.integers(0, len(value) - 1)), draw(st.integers(0, 5))
        if how == 0:
            return value[:place] + value[place + 1 :]
        if how == 1:
            return [*value, value[place]]
        return [*value[:place], mutated(draw, value[place]), *value[place + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and draw(st.booleans()):
        return value + draw(st.integers(-3, 3))
    if isinstance(value, str) and draw(st.booleans()):
        return draw(NAMES)
    return draw(SCALARS)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_whatever_is_changed_a_graph_runs_or_is_rejected(data, changes):
    whole, arrays = parts("floats")
    for _ in range(changes):
        whole = mutated(data.draw, whole)
    try:
        graph = Graph.from_json(json.dumps(whole), arrays)
        submission = Submission(graph, arrays)
        submission.check()
    except Rejected:
        return
    outputs = Program(graph, arrays).run({graph.inputs[0].name: np.ones((2, 1, 28, 28), np.float32)})
    assert outputs[0].shape == (2, 10)
