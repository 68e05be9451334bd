"""Linear layers that round their input, and attention with such layers around it: exported, run, counted, refused."""

import importlib
import json
import tracemalloc

import numpy as np
import pytest
from typer.testing import CliRunner

from tinytorch import Tensor, nn, no_grad, zoo
from tinytorch.benchmarks.tinymlperf.command import app
from tinytorch.benchmarks.tinymlperf.execution import Program, _groups
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.benchmarks.tinymlperf.inference import follow
from tinytorch.benchmarks.tinymlperf.making import made
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected
from tinytorch.benchmarks.tinymlperf.submission import Submission
from tinytorch.caching import QuantizedKVCache, WindowKVCache
from tinytorch.compression import BreakEven, MagnitudePruner, SparseLinear, sparse_linears
from tinytorch.profiling import FLOPCounter
from tinytorch.quantization import DynamicQuantizedLinear, quantize_dynamic

graphs = importlib.import_module("tests.20_benchmarking.graphs")
node = graphs.node
IMAGES, TEXT, VOCABULARY = graphs.IMAGES, graphs.TEXT, graphs.VOCABULARY


def small_gpt(kv_heads=4, seed=0):
    model = nn.GPT(VOCABULARY, 16, 2, 4, 256, np.random.default_rng(seed), kv_heads).eval()
    for parameter in model.parameters():  # biases, too, that are not zero
        parameter.data += np.random.default_rng(seed + 1).normal(0, 0.1, parameter.shape).astype(np.float32)
    return model


def pruned_gpt():
    return MagnitudePruner(0.7).prepare(small_gpt()).finalize()


def of_all_kinds():
    """A GPT whose attention has layers of three kinds, one of them thin."""
    model, rng = small_gpt(2), np.random.default_rng(2)
    first, second = (block.attention for block in model.blocks)
    first.in_proj = nn.Sequential(nn.Linear(16, 3, False, rng), nn.Linear(3, 32, rng=rng))
    first.out_proj = SparseLinear.from_dense(first.out_proj)
    second.in_proj = DynamicQuantizedLinear.from_float(second.in_proj)
    return model


GPTS = {
    "8 bits": lambda: quantize_dynamic(small_gpt()),
    "8 bits, keys shared": lambda: quantize_dynamic(small_gpt(2)),
    "8 bits, shipped": lambda: quantize_dynamic(zoo.load("char_gpt")),
    "zeros": lambda: sparse_linears(pruned_gpt(), BreakEven(0.0, 0.0)),
    "zeros in some layers": lambda: sparse_linears(pruned_gpt(), BreakEven(0.72, 0.0)),
    "8 bits and zeros": lambda: quantize_dynamic(pruned_gpt()),
}


def ids(length=30):
    return np.random.default_rng(0).integers(0, VOCABULARY, (2, length))


def program(submission):
    return Program(submission.graph, submission.arrays)


def scores(model, tokens):
    with no_grad():
        return model(tokens).data


@pytest.mark.parametrize("cache", ["none", "float32", "int8", "window"])
@pytest.mark.parametrize("name", GPTS)
def test_a_gpt_of_other_layers_in_a_file_is_run_by_the_one_of_this_package(tmp_path, name, cache):
    model = GPTS[name]()
    opened = Submission.open(export(model, TEXT, cache=cache).save(tmp_path / "gpt.safetensors"))
    found = program(opened)
    kinds = [type(module) for module in model.modules()]
    assert [type(module) for module in found.text.gpt.modules()] == kinds
    np.testing.assert_array_equal(found.run({"ids": ids()})[0], scores(model, ids()))
    found.reset(2)
    steps = [found.step(ids()[:, :20]), *(found.step(ids()[:, i : i + 1]) for i in range(20, 30))]
    memory = {"int8": QuantizedKVCache, "window": WindowKVCache}.get(cache, nn.KVCache)
    own = memory(2, *((64, 4) if cache == "window" else (256,)), *sizes(model))
    with no_grad():
        for at, step in zip((20, *range(21, 31)), steps, strict=True):
            wanted = model(ids()[:, :at]) if cache == "none" else model(ids()[:, at - step.shape[1] : at], own)
            np.testing.assert_array_equal(step, wanted.data[:, -step.shape[1] :])


def sizes(model):
    attention = model.blocks[0].attention
    return model.num_layers, attention.num_kv_heads, attention.head_dim


@pytest.mark.parametrize("cache", ["none", "float32"])
def test_layers_of_all_kinds_are_done_node_by_node_and_remember_too(cache):
    model = of_all_kinds()
    found = program(export(model, TEXT, cache=cache))
    assert found.text.gpt is None
    np.testing.assert_allclose(found.run({"ids": ids()})[0], scores(model, ids()), rtol=0, atol=1e-5)
    found.reset(2)
    steps = [found.step(ids()[:, i : i + 1]) for i in range(12)]
    np.testing.assert_allclose(np.concatenate(steps, axis=1), scores(model, ids()[:, :12]), rtol=0, atol=0.03)


def test_whole_and_node_by_node_are_the_same():
    submission = export(quantize_dynamic(small_gpt(2)), TEXT)
    whole, nodes = program(submission), program(submission)
    nodes.text.gpt, nodes.text._layers = None, [step.layer() for step in nodes.text.steps]
    np.testing.assert_allclose(*(p.run({"ids": ids()})[0] for p in (whole, nodes)), rtol=0, atol=1e-5)
    np.testing.assert_allclose(*(p.generate(ids(8), 5) for p in (whole, nodes)), rtol=0, atol=0.03)


def changed(change):
    """Export a small GPT, change its graph, and return it with its arrays."""
    whole, arrays = graph_of(quantize_dynamic(small_gpt()))
    change(whole["nodes"], arrays)
    return whole, arrays


def graph_of(model):
    exported = export(model, TEXT, division="open")
    return json.loads(exported.graph.to_json()), dict(exported.arrays)


def other_residual(nodes, arrays):
    nodes[7]["inputs"][0] = nodes[3]["outputs"][0]  # what the norm made, not what came before it


def positions_of_the_sum(nodes, arrays):
    nodes[2]["inputs"].reverse()


def wide_attention(nodes, arrays):
    """Attention that is twice as wide as what it works on."""
    for name, axis in (("in_proj", 0), ("out_proj", 1)):
        for block in (0, 1):
            at = f"blocks.{block}.attention.{name}."
            arrays[at + "weight"] = np.repeat(arrays[at + "weight"], 2, axis)
            if axis == 0:
                arrays[at + "weight_scale"], arrays[at + "bias"] = (
                    np.repeat(arrays[at + part], 2) for part in ("weight_scale", "bias")
                )


@pytest.mark.parametrize("change", [other_residual, positions_of_the_sum, wide_attention])
def test_what_is_no_gpt_is_done_as_its_graph_says(tmp_path, change):
    found = program(graphs.opened(tmp_path / "other", *changed(change)))
    assert found.text.gpt is None
    whole = found.run({"ids": ids()})[0]
    found.reset(2)
    steps = [found.step(ids()[:, i : i + 1]) for i in range(30)]
    np.testing.assert_allclose(np.concatenate(steps, axis=1), whole, rtol=0, atol=0.05)


def cnn():
    return quantize_dynamic(zoo.load("reference_cnn"))


def test_a_sequential_with_such_layers_is_a_submission_and_keeps_its_plans(tmp_path):
    model = cnn()
    opened = Submission.open(export(model, IMAGES).save(tmp_path / "cnn.safetensors"))
    found, x = program(opened), np.random.default_rng(0).random((5, 1, 28, 28)).astype(np.float32)
    np.testing.assert_allclose(found.run({"x": x})[0], scores(model, Tensor(x)), rtol=0, atol=0.02)
    names = [[s.operation.name for s in steps] for steps in _parts(opened)]
    assert [part for part in names if "dynamic_qlinear" in part] == [["dynamic_qlinear"]] * 2


def _parts(submission):
    return _groups(follow(submission.graph, submission.arrays))


def test_it_works_on_the_last_axis_of_images_too(tmp_path):
    whole = graphs.graph(
        IMAGES,
        node("dynamic_qlinear", "x w s b", "a"),
        node("flatten", "a", "f"),
        node("dynamic_qlinear", "f v t", "y"),
    )
    arrays = {
        "w": np.full((4, 28), 3, np.int8), "s": np.full(4, 0.1, np.float32), "b": np.arange(4, dtype=np.float32),
        "v": np.ones((10, 112), np.int8), "t": np.full(10, 0.01, np.float32),
    }  # fmt: skip
    opened = graphs.opened(tmp_path / "rows", whole, arrays)
    x = graphs.images()
    first = DynamicQuantizedLinear(arrays["w"], arrays["s"], arrays["b"])(Tensor(x))
    expected = DynamicQuantizedLinear(arrays["v"], arrays["t"])(first.reshape(2, 112)).data
    np.testing.assert_array_equal(graphs.run(opened)[0], expected)
    flops = 28 * (4 * 28 + 2 + 4 * (2 * 28 + 3)) + (4 * 112 + 2 + 10 * (2 * 112 + 2))
    assert opened.costs.flops == flops


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_operations_of_a_text_are_those_that_the_profiler_counts(kv_heads):
    model = quantize_dynamic(small_gpt(kv_heads))
    submission, tokens = export(model, TEXT), np.zeros((1, 256), np.int64)
    with FLOPCounter(model, strict=True) as counter, no_grad():
        model(tokens)
    assert submission.costs.flops == counter.total.flops


def test_such_a_gpt_takes_a_third_of_the_bytes_and_no_more_memory():
    floats, codes = export(zoo.load("char_gpt"), TEXT), export(quantize_dynamic(zoo.load("char_gpt")), TEXT)
    assert codes.stored_bytes < 0.31 * floats.stored_bytes
    assert codes.costs.peak_activation_bytes == floats.costs.peak_activation_bytes


def test_one_command_makes_it(tmp_path):
    path = tmp_path / "gpt.safetensors"
    assert CliRunner().invoke(app, ["export", "char_gpt", "-o", str(path), "--bits", "8"]).exit_code == 0
    ops = [n.op for n in Submission.open(path).graph.nodes]
    assert (ops.count("dynamic_qlinear"), ops.count("attend"), ops.count("linear")) == (17, 4, 0)
    sparse, task = made("char_gpt", sparsity=0.8)
    assert task == TEXT
    assert sum(isinstance(module, SparseLinear) for module in sparse.modules()) > 10
    with pytest.raises(ValueError, match="a GPT has no filters"):
        made("char_gpt", filters=0.5)


# Refused


def codes():
    """A graph of one such layer behind a flattening, and its tensors."""
    nodes = node("flatten", "x", "f"), node("dynamic_qlinear", "f w s b", "y")
    return graphs.graph(IMAGES, *nodes), {
        "w": np.ones((10, 784), np.int8), "s": np.full(10, 0.01, np.float32), "b": np.zeros(10, np.float32),
    }  # fmt: skip


def text():
    """A language model of attention alone."""
    nodes = (
        node("embedding", "ids e", "a"), node("dynamic_qlinear", "a w s", "q"),
        node("attend", "q", "c", num_heads=2, num_kv_heads=1), node("linear", "c e", "y"),
    )  # fmt: skip
    return graphs.graph(TEXT, *nodes), {
        "e": graphs.numbers(VOCABULARY, 8), "w": np.ones((16, 8), np.int8), "s": np.full(16, 0.01, np.float32),
    }  # fmt: skip


def attends(*more, **attributes):
    """Change the attention of `text`, and put another one behind it."""

    def change(g, a):
        g["nodes"][2]["attributes"].update(attributes)
        if more:
            g["nodes"].insert(3, node("dynamic_qlinear", "c w s", "q2"))
            g["nodes"].insert(4, node("attend", "q2", "c2", **dict(more)))
            g["nodes"][5]["inputs"][0] = "c2"

    return change


def array(name, change):
    return lambda g, a: a.update({name: change(a[name].copy())})


def with_item(place, value):
    def change(x):
        x.reshape(-1)[place] = value
        return x

    return change


HOSTILE = {
    "an attribute": (codes, lambda g, a: g["nodes"][1]["attributes"].update(weight_bits=8), Code.BAD_ATTRIBUTE),
    "weights of whole bytes": (codes, array("w", lambda x: x.view(np.uint8)), Code.BAD_DTYPE),
    "weights of floats": (codes, array("w", lambda x: x.astype(np.float32)), Code.BAD_DTYPE),
    "weights for other features": (codes, array("w", lambda x: x[:, 1:].copy()), Code.BAD_SHAPE),
    "weights of three axes": (codes, array("w", lambda x: x[:, :, None]), Code.BAD_SHAPE),
    "weights of no outputs": (codes, array("w", lambda x: x[:0]), Code.BAD_SHAPE),
    "a scale less": (codes, array("s", lambda x: x[1:].copy()), Code.BAD_SHAPE),
    "scales of whole numbers": (codes, array("s", lambda x: x.astype(np.int32)), Code.BAD_DTYPE),
    "a scale of 0": (codes, array("s", with_item(3, 0)), Code.BAD_VALUE),
    "a scale below zero": (codes, array("s", with_item(3, -0.1)), Code.BAD_VALUE),
    "a scale of NaN": (codes, array("s", with_item(3, np.nan)), Code.NOT_FINITE),
    "a scale without end": (codes, array("s", with_item(3, np.inf)), Code.NOT_FINITE),
    "a bias of whole numbers": (codes, array("b", lambda x: x.astype(np.int32)), Code.BAD_DTYPE),
    "a bias of two axes": (codes, array("b", lambda x: x[:, None]), Code.BAD_SHAPE),
    "no scale": (codes, lambda g, a: (g["nodes"][1].update(inputs=["f", "w"]), a.pop("s"), a.pop("b")), Code.BAD_GRAPH),
    "codes to work on": (
        codes,
        lambda g, a: g["nodes"].insert(0, node("quantize", "x", "q", scale=0.1, zero_point=0))
        or g["nodes"][1].update(inputs=["q"]),
        Code.BAD_DTYPE,
    ),
    "sums beyond 32 bits": (
        codes,
        lambda g, a: (
            g["nodes"].insert(0, node("conv2d", "x k", "c")), g["nodes"][1].update(inputs=["c"]),
            a.update(k=np.ones((100, 1, 1, 1), np.float32), w=np.full((10, 78_400), 127, np.int8)),
        ),
        Code.BAD_VALUE,
    ),
    "ids to work on": (
        text,
        lambda g, a: g["nodes"].append(node("add", "y z", "u")) or g.update(outputs=["u"])
        or g["nodes"].insert(1, node("dynamic_qlinear", "ids w s", "z")),
        Code.BAD_DTYPE,
    ),
    "no heads": (text, attends(num_heads=0), Code.BAD_ATTRIBUTE),
    "heads that do not divide": (text, attends(num_heads=3), Code.BAD_ATTRIBUTE),
    "heads of keys that do not divide": (text, attends(num_heads=2, num_kv_heads=3), Code.BAD_ATTRIBUTE),
    "a cache that is not there": (text, attends(cache="paged"), Code.BAD_ATTRIBUTE),
    "an attention of images": (
        codes,
        lambda g, a: g["nodes"].insert(0, node("attend", "x", "z", num_heads=1, num_kv_heads=1))
        or g["nodes"][1].update(inputs=["z"]),
        Code.BAD_SHAPE,
    ),
    "heads of other numbers behind": (text, attends(("num_heads", 4), ("num_kv_heads", 2)), Code.BAD_ATTRIBUTE),
    "caches of two kinds": (
        text, attends(("num_heads", 2), ("num_kv_heads", 1), ("cache", "int8")), Code.BAD_ATTRIBUTE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", [codes, text])
def test_the_good_graphs_that_the_hostile_ones_differ_from_are_run(make, tmp_path):
    assert all(np.isfinite(output).all() for output in graphs.run(graphs.opened(tmp_path / "good", *make())))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_graph_is_refused_with_its_code(name, tmp_path):
    make, change, code = HOSTILE[name]
    whole, arrays = make()
    change(whole, arrays)
    with pytest.raises(Rejected) as refused:
        graphs.opened(tmp_path / "hostile", whole, arrays)
    assert refused.value.code == code, refused.value


def test_attention_of_any_width_needs_no_memory_for_weights_that_it_has_not(tmp_path):
    """Linear layers of 7,000 x 21,000 numbers would be 600 megabytes."""
    whole, arrays = text()
    arrays |= {"w": np.ones((21_000, 8), np.int8), "s": np.full(21_000, 0.01, np.float32)}
    arrays |= {"o": np.ones((8, 7_000), np.int8), "t": np.full(8, 0.01, np.float32)}
    whole["nodes"][2]["attributes"].update(num_heads=1, num_kv_heads=1)
    whole["nodes"][3:] = [node("dynamic_qlinear", "c o t", "d"), node("linear", "d e", "y")]
    tracemalloc.start()
    try:
        found = program(graphs.opened(tmp_path / "wide", whole, arrays))
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert found.run({"ids": ids(2)})[0].shape == (2, 2, VOCABULARY)
