"""onnxruntime computes the same codes, from single layers and from the file that `export_onnx` writes."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import data, nn, zoo
from tinytorch.kernels.int8 import Network
from tinytorch.quantization import (
    INT8Quantizer,
    QParams,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedModel,
    QuantizedPool2d,
)
from tinytorch.quantization.onnx import export_onnx

why = "compares with onnxruntime: pip install onnx onnxruntime"
onnx = pytest.importorskip("onnx", reason=why)
onnxruntime = pytest.importorskip("onnxruntime", reason=why)

many = settings(max_examples=150)
OPERATORS = ("QLinearConv", "QGemm", "QLinearMatMul")


def session(model, optimized="", as_it_stands=False):
    """Return a session on one thread; `optimized` is where it shall write what it made of the model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors: it warns that the optimized model is for this machine alone
    # without a dot instruction it would add products in 16 bits, which saturate
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.optimized_model_filepath = str(optimized)
    if as_it_stands:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def operator(kind, layer, shape):
    """Return the layer as a single operator of onnxruntime, on codes of that shape."""
    is_conv, weight = kind == "QLinearConv", layer.weight
    domain, names, attributes = "", ["y_scale", "y_zero_point"], {}
    if is_conv:
        attributes = {"strides": [layer.stride] * 2, "pads": [layer.padding] * 4}
    if kind == "QGemm":
        domain, names, attributes = "com.microsoft", ["bias", *names], {"transB": 1}
    if kind == "QLinearMatMul":
        weight = weight.T
    names = ["scale", "zero_point", "weight", "weight_scale", "weight_zero_point", *names, *["bias"] * is_conv]
    arrays = {
        "scale": np.float32(layer.input_qparams.scale), "zero_point": np.uint8(layer.input_qparams.zero_point),
        "y_scale": np.float32(layer.qparams.scale), "y_zero_point": np.uint8(layer.qparams.zero_point),
        "weight": np.ascontiguousarray(weight), "weight_scale": layer.weight_scale,
        "weight_zero_point": np.zeros(len(layer.weight), np.int8), "bias": layer.bias,
    }  # fmt: skip
    make = onnx.helper
    graph = make.make_graph(
        [make.make_node(kind, ["x", *names], ["y"], domain=domain, **attributes)],
        "layer",
        [make.make_tensor_value_info("x", onnx.TensorProto.UINT8, shape)],
        [make.make_tensor_value_info("y", onnx.TensorProto.UINT8, None)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items() if name in names],
    )
    opsets = [make.make_opsetid("", 13), make.make_opsetid("com.microsoft", 1)]
    return session(make.make_model(graph, opset_imports=opsets, ir_version=7).SerializeToString())


def random_qparams(rng, bits):
    return QParams(float(np.float32(rng.uniform(0.01, 1.0))), int(rng.integers(2**bits)), bits)


def random_layer(kind, rng, *, bits=8, relu=False, pool=1):
    """Return a layer, a scale for each channel in it, whose codes reach over the whole range and beyond."""
    channels, out, kernel = (int(rng.choice(sizes)) for sizes in ((1, 3, 8, 16, 33), (1, 4, 10, 16, 32, 65), (1, 2, 3)))
    is_conv = kind == "QLinearConv"
    size = (out, channels, kernel, kernel) if is_conv else (out, channels)
    weight = rng.integers(-127, 128, size, np.int8)
    incoming, highest = random_qparams(rng, 8), 2**bits - 1
    weight_scale = rng.uniform(0.001, 0.01, out).astype(np.float32)
    spread = incoming.scale * 0.005 * 75 * 110 * np.sqrt(weight[0].size)  # of the sums, about
    outgoing = QParams(
        float(np.float32(spread / highest * rng.uniform(1.0, 4.0))), int(rng.integers(highest + 1)), bits
    )
    bias = np.zeros(out, np.int32) if kind == "QLinearMatMul" else rng.integers(-20000, 20001, out, np.int32)
    numbers = {"weight": weight, "weight_scale": weight_scale, "bias": bias, "relu": relu,
               "input_qparams": incoming, "qparams": outgoing}  # fmt: skip
    if not is_conv:
        return QuantizedLinear(**numbers)
    return QuantizedConv2d(**numbers, stride=int(rng.integers(1, 3)), padding=int(rng.integers(3)), pool=pool)


def inputs_of(layer, rng):
    """Return codes for a layer, images or vectors."""
    size = rng.integers(8, 15, 2) if isinstance(layer, QuantizedConv2d) else ()
    return rng.integers(0, 256, (int(rng.integers(1, 5)), layer.weight.shape[1], *size), np.uint8)


def both(kind, seed):
    """Return the codes of a random layer, as signed numbers: ours and onnxruntime's."""
    rng = np.random.default_rng(seed)
    layer = random_layer(kind, rng)
    x = inputs_of(layer, rng)
    (theirs,) = operator(kind, layer, x.shape).run(None, {"x": x})
    return Network([layer.spec()], x.shape[1:])(x).astype(int), theirs.astype(int)


@pytest.mark.parametrize("kind", OPERATORS)
@many
@given(seed=st.integers(0, 2**32 - 1))
def test_a_layer_is_within_one_code_of_onnxruntimes(kind, seed):
    ours, theirs = both(kind, seed)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("kind", OPERATORS)
def test_hardly_any_code_differs_at_all(kind):
    """The multiplier of onnxruntime is rounded twice more: a sum must lie beside a tie for that to show."""
    pairs = [both(kind, seed) for seed in range(100)]
    count, different = (sum(f(*pair) for pair in pairs) for f in (lambda a, _: a.size, lambda a, b: (a != b).sum()))
    assert len(np.unique(np.concatenate([a.ravel() for a, _ in pairs]))) > 250
    assert different <= 1e-4 * count


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples of a test."""
    return tmp_path_factory.mktemp("onnx")


def random_model(kind, rng, bits):
    """Return a model of one layer, an input for it, and the step of its output, None if that is numbers."""
    if kind == "pool":
        layer = QuantizedPool2d(
            int(rng.integers(1, 4)), int(rng.integers(1, 4)), bool(rng.integers(2)), random_qparams(rng, bits)
        )
        shape = (int(rng.integers(1, 6)), *rng.integers(3, 9, 2))
    else:
        relu, pool = bool(rng.integers(2)), int(rng.integers(1, 4))
        layer = random_layer({"conv": "QLinearConv"}.get(kind, "QGemm"), rng, bits=bits, relu=relu, pool=pool)
        if kind == "logits":
            layer.qparams, layer.relu = None, False
        shape = inputs_of(layer, rng).shape[1:]
    scale, zero_point, bits = layer.input_qparams
    codes = rng.uniform(-20, 2**bits + 20, (3, *shape))  # some beyond the range
    x = (scale * (codes - zero_point)).astype(np.float32)
    return QuantizedModel([layer]), x, None if layer.qparams is None else layer.qparams.scale


@pytest.mark.parametrize("kind", ["conv", "linear", "logits", "pool"])
@many
@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from([8, 8, 5, 2]), as_it_stands=st.booleans())
def test_an_exported_layer_gives_our_numbers_but_for_one_code(folder, kind, seed, bits, as_it_stands):
    model, x, step = random_model(kind, np.random.default_rng(seed), bits)
    path = export_onnx(model, folder / "layer.onnx", x.shape[1:])
    onnx.checker.check_model(onnx.load(path), full_check=True)
    ours, (theirs,) = model(x).data, session(path, as_it_stands=as_it_stands).run(["y"], {"x": x})
    assert theirs.shape == ours.shape
    allowed = 1.01 * step if step else 1e-4 * np.abs(ours).max()
    assert np.abs(ours - theirs).max() <= allowed


@pytest.fixture(scope="module")
def quantized():
    images, _, _ = data.fashion_mnist("train")
    model = zoo.load("reference_cnn")
    return INT8Quantizer().calibrate(model, images[:256], progress=False).convert(model)


def test_onnxruntime_predicts_what_the_quantized_cnn_predicts(quantized, tmp_path):
    images, _, _ = data.fashion_mnist("test")
    path = export_onnx(quantized, tmp_path / "cnn.onnx", (1, 28, 28))
    (theirs,) = session(path).run(["y"], {"x": images})
    ours = np.concatenate([quantized(images[start : start + 500]).data for start in range(0, len(images), 500)])
    assert ours.shape == theirs.shape == (10_000, 10)
    assert (ours.argmax(axis=1) != theirs.argmax(axis=1)).sum() <= 5
    assert (np.abs(ours - theirs).max(axis=1) < 1e-4).mean() > 0.99  # no code between image and logits differs


def test_onnxruntime_makes_whole_numbers_of_the_exported_graph(quantized, tmp_path):
    session(export_onnx(quantized, tmp_path / "cnn.onnx", (1, 28, 28)), tmp_path / "optimized.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert (kinds.count("QLinearConv"), kinds.count("QGemm")) == (3, 2)
    assert not {"Conv", "Gemm", "MatMul", "Relu", "DequantizeLinear"} & set(kinds)
    assert kinds.count("QuantizeLinear") == 1  # of the image


def test_an_exported_file_takes_any_number_of_images_or_the_one_that_was_asked_for(quantized, tmp_path):
    for batch, shape in (("N", ["N", 1, 28, 28]), (7, [7, 1, 28, 28])):
        path = tmp_path / f"{batch}.onnx"
        assert export_onnx(quantized, str(path), (1, 28, 28), batch) == path
        opened = session(path)
        assert (opened.get_inputs()[0].name, opened.get_inputs()[0].shape) == ("x", shape)
        assert (opened.get_outputs()[0].name, opened.get_outputs()[0].shape) == ("y", [shape[0], 10])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["7.onnx", "N.onnx"]


def test_what_cannot_be_exported_is_named_and_nothing_is_written(quantized, tmp_path):
    path, rng = tmp_path / "model.onnx", np.random.default_rng(0)
    mixed = nn.Sequential(nn.Linear(4, 4, rng=rng), nn.GELU(), nn.Linear(4, 2, rng=rng))
    vectors = rng.standard_normal((8, 4), np.float32)
    left = INT8Quantizer(unsupported="float").calibrate(mixed, vectors, progress=False).convert(mixed)
    with pytest.raises(ValueError, match=r"only a model of whole numbers can be exported; in float32 are layers 1$"):
        export_onnx(left, path, (4,))
    with pytest.raises(TypeError, match="takes a QuantizedModel, as INT8Quantizer makes it, not Sequential"):
        export_onnx(mixed, path, (4,))
    with pytest.raises(ValueError, match=r"takes \(1, H, W\), not \(3, 28, 28\)"):
        export_onnx(quantized, path, (3, 28, 28))
    for batch in (0, "", 1.5):
        with pytest.raises(ValueError, match="batch has to be a whole number above zero, or a name"):
            export_onnx(quantized, path, (1, 28, 28), batch)
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_the_error_says_what_to_install(quantized, tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r'needs onnx: pip install "tinytorch-book\[onnx\]"'):
        export_onnx(quantized, tmp_path / "model.onnx", (1, 28, 28))
