"""One launch of the measurements of whole numbers of 8 bits: `python -m tests.bench.quantization SEED SECONDS`; rows:

* `conv_32x32x32x64_gops` and `conv_32x32x32x64_best`, for batch x channels in x size x channels out: the speed of our
  3 x 3 convolution from codes to codes, and the time of the better of PyTorch and onnxruntime over ours;
  `conv_32x32x32x64_fp32` and `conv_32x32x32x64_torch_fp32`, from 32 channels on: the time of our best convolution of
  float32, and of PyTorch's, over ours of codes;
* `cnn_32`, `cnn_32_numpy`, `cnn_32_fp32`, `cnn_32_ort`: milliseconds of the quantized reference CNN on 32 images of
  float32, and the times of the float32 model under backend "numpy", of its compiled plan, and of onnxruntime with the
  quantized model's file over it; `cnn_1` ... for one image; `wide_32`, `wide_32_fp32`: the same of a wider CNN;
* `..._threads` of the second convolution and of 32 images: the same on all threads;
* `numpy_integers`: the time of NumPy's product of whole numbers over that of float32;
* `path_generic`, and so on for each way to multiply that this processor has: speed of the second convolution.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from threadpoolctl import threadpool_limits

from tests.bench.inference import CONVOLUTIONS
from tests.bench.launches import Wanted, report
from tests.bench.threads import ONE, Threads, all_threads
from tests.bench.turns import ratio, timer
from tinytorch import Tensor, backend, data, get_num_threads, nn, no_grad, zoo
from tinytorch.acceleration import Plan
from tinytorch.kernels import int8
from tinytorch.kernels.conv import conv2d
from tinytorch.quantization import INT8Quantizer, QParams, QuantizedConv2d, QuantizedModel, dequantize, dot_path
from tinytorch.quantization import dot_paths as paths_here
from tinytorch.quantization.onnx import export_onnx

Found = dict[str, tuple[float, Wanted]]
Shape = tuple[int, int, int, int]


def session(model: bytes) -> onnxruntime.InferenceSession:
    """Return a session on our kernels' number of threads that computes exactly, also without a dot instruction."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = get_num_threads(), 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def random_layer(shape: Shape, rng: np.random.Generator) -> QuantizedConv2d:
    """Return a 3 x 3 convolution with padding 1 whose outputs reach over all codes; its inputs are a ReLU's: 0 is 0."""
    _, c_in, _, c_out = shape
    # 7 bits: without a dot instruction, peers add pairs of products in 16 bits
    weight = rng.integers(-63, 64, (c_out, c_in, 3, 3), np.int8)
    weight_scale = rng.uniform(0.001, 0.002, c_out).astype(np.float32)
    step = 0.02 * 0.0015 * 147 * 36 * np.sqrt(9 * c_in) / 64  # so that two deviations are 128 codes
    return QuantizedConv2d(
        weight=weight, weight_scale=weight_scale, bias=np.zeros(c_out, np.int32), padding=1,
        input_qparams=QParams(0.02, 0), qparams=QParams(step, 128),
    )  # fmt: skip


def onnxruntimes(layer: QuantizedConv2d, codes: np.ndarray) -> Callable[[], np.ndarray]:
    """Return onnxruntime's convolution of codes (N, C, H, W), (N, H, W, C) in memory: in its own layout, like ours."""
    (scale, zero_point, _), (y_scale, y_zero_point, _) = layer.input_qparams, layer.qparams
    arrays = {
        "scale": np.float32(scale), "zero_point": np.uint8(zero_point), "weight": layer.weight,
        "weight_scale": layer.weight_scale, "weight_zero_point": np.zeros(len(layer.weight), np.int8),
        "y_scale": np.float32(y_scale), "y_zero_point": np.uint8(y_zero_point), "bias": layer.bias,
    }  # fmt: skip
    node = helper.make_node("QLinearConv", ["x", *arrays], ["y"], domain="com.microsoft", pads=[1] * 4, channels_last=1)
    x = codes.transpose(0, 2, 3, 1)
    graph = helper.make_graph(
        [node],
        "peer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    run = session(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()).run
    return lambda: run(None, {"x": x})[0].transpose(0, 3, 1, 2)


def torchs(layer: QuantizedConv2d, codes: np.ndarray) -> Callable[[], Any]:
    """Return PyTorch's convolution of codes, channels last."""
    import torch

    if "x86" in torch.backends.quantized.supported_engines:
        torch.backends.quantized.engine = "x86"
    # that these tensors are to be removed one day
    warnings.filterwarnings("ignore", "torch.quantize_per_tensor, .* are deprecated", UserWarning)
    (scale, zero_point, _), (y_scale, y_zero_point, _) = layer.input_qparams, layer.qparams
    x = torch._make_per_tensor_quantized_tensor(torch.from_numpy(np.ascontiguousarray(codes)), scale, zero_point)
    scales = torch.from_numpy(layer.weight_scale).double()
    weight = torch._make_per_channel_quantized_tensor(
        torch.from_numpy(layer.weight), scales, torch.zeros(len(scales), dtype=torch.long), 0
    )
    packed = torch.ops.quantized.conv2d_prepack(weight, None, [1, 1], [1, 1], [1, 1], 1)
    x = x.contiguous(memory_format=torch.channels_last)
    return partial(torch.ops.quantized.conv2d, x, packed, y_scale, y_zero_point)


def floats(layer: QuantizedConv2d, codes: np.ndarray) -> list[Callable[[], Any]]:
    """Return the same convolution of float32: our two best, and PyTorch's, images with their channels last."""
    import torch

    x = dequantize(codes, layer.input_qparams.scale, layer.input_qparams.zero_point)
    weight = dequantize(layer.weight, layer.weight_scale, np.zeros(len(layer.weight), np.int32), axis=0)
    conv = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1, bias=False)
    conv.weight.data[:] = weight
    tx, tw = (torch.from_numpy(a.copy()).to(memory_format=torch.channels_last) for a in (x, weight))
    return [
        partial(conv2d, x, weight, None, 1, 1),
        partial(Plan(nn.Sequential(conv), x.shape[1:]), x),
        partial(torch.conv2d, tx, tw, padding=1),
    ]


def convolution(shape: Shape, rng: np.random.Generator, seconds: float, threads: Threads = ONE) -> Found:
    """One 3 x 3 convolution with padding 1, images with their channels last on all sides."""
    (n, c_in, size, c_out), over_floats = shape, shape[1] >= 32 and threads is ONE
    layer = random_layer(shape, rng)
    codes = rng.integers(0, 256, (n, size, size, c_in), np.uint8).transpose(0, 3, 1, 2)
    functions = [partial(int8.Network([layer.spec()], codes.shape[1:]), codes), torchs(layer, codes)]
    functions += [onnxruntimes(layer, codes), *(floats(layer, codes) if over_floats else [])]
    ours, *others = (f() for f in functions)
    scale, zero_point, _ = layer.qparams
    for theirs in (others[0].int_repr().numpy(), others[1]):
        np.testing.assert_allclose(ours.astype(int), theirs.astype(int), rtol=0, atol=1)
    for theirs in map(np.asarray, others[2:]):
        rounded = np.clip(np.rint(theirs / scale) + zero_point, 0, 255)
        np.testing.assert_allclose(ours.astype(int), rounded, rtol=0, atol=1)
    times = threads.rounds(functions, rng, seconds)
    medians, name = np.median(times, axis=0), "x".join(map(str, shape))
    title = f"3 x 3 convolution of 8-bit codes, batch {n}, {c_in} to {c_out} channels, {size} x {size}{threads.words}"
    what = f"{title}, the better of PyTorch's and onnxruntime's time over ours"
    operations = 2 * 9 * c_in * c_out * n * size * size
    better, aim = 1 + int(medians[1:3].argmin()), 1.0 if threads is ONE else None
    rows: Found = {
        f"conv_{name}_gops{threads.suffix}": (1e-9 * operations / float(medians[0]), Wanted(title, "GOP/s")),
        f"conv_{name}_best{threads.suffix}": (ratio(times, better, 0), Wanted(what, "x", aim)),
    }
    if over_floats:
        own, theirs = f"{title}, our best time in float32 over it", f"{title}, PyTorch's time in float32 over it"
        rows[f"conv_{name}_fp32"] = ratio(times, 3 + int(medians[3:5].argmin()), 0), Wanted(own, "x", 4.0)
        rows[f"conv_{name}_torch_fp32"] = ratio(times, 5, 0), Wanted(theirs, "x", 4.0)
    return rows


def under_numpy(model: nn.Module, x: Tensor) -> np.ndarray:
    """Run a model in float32 with NumPy."""
    with backend("numpy"):
        return model(x).data


def exported(model: QuantizedModel, x: np.ndarray) -> Callable[[], np.ndarray]:
    """Return onnxruntime's run of a quantized model's file, made for so many images."""
    with tempfile.TemporaryDirectory() as folder:
        file = export_onnx(model, Path(folder) / "model.onnx", x.shape[1:], len(x)).read_bytes()
    run = session(file).run
    return lambda: run(None, {"x": x})[0]


def wide_cnn() -> nn.Sequential:
    """The reference CNN's layers with twice the channels, untrained, but for what batch norm learns of its inputs."""
    rng, layers, before = np.random.default_rng(0), list[nn.Module](), 1
    for channels in (32, 64, 128):
        norm = nn.BatchNorm2d(channels)
        norm.weight.data[:], norm.bias.data[:] = rng.uniform(0.5, 1.5, channels), rng.normal(0.0, 0.2, channels)
        layers += [nn.Conv2d(before, channels, 3, padding=1, rng=rng), norm, nn.ReLU(), nn.MaxPool2d(2)]
        before = channels
    layers += [nn.Flatten(), nn.Linear(128 * 3 * 3, 128, rng=rng), nn.ReLU(), nn.Linear(128, 10, rng=rng)]
    model, x = nn.Sequential(*layers).train(), Tensor(rng.standard_normal((64, 1, 28, 28), np.float32))
    for _ in range(30):  # the running statistics come near those of the images
        model(x)
    return model.eval()


def whole(
    row: str,
    title: str,
    model: nn.Sequential,
    calibration: np.ndarray,
    x: np.ndarray,
    aims: dict[str, float | None],
    rng: np.random.Generator,
    seconds: float,
    threads: Threads = ONE,
) -> Found:
    """A quantized model, from images of float32 to logits, beside those that have an entry in `aims`."""
    quantized = INT8Quantizer().calibrate(model, calibration, progress=False).convert(model)
    sides: dict[str, tuple[Callable[[], Any], str]] = {
        "numpy": (partial(under_numpy, model, Tensor(x)), 'backend "numpy" in float32'),
        "fp32": (partial(Plan(model, x.shape[1:]), x), "our compiled plan in float32"),
        "ort": (exported(quantized, x), "onnxruntime in whole numbers"),
    }
    functions = [partial(quantized, x), *(sides[peer][0] for peer in aims)]
    ours = functions[0]().data
    for peer, function in zip(aims, functions[1:], strict=True):
        # whole numbers may differ by a code; from float32, by all that rounding costs
        np.testing.assert_allclose(ours, function(), rtol=0, atol=(0.02 if peer == "ort" else 0.1) * np.abs(ours).max())
    times, images = threads.rounds(functions, rng, seconds), "1 image" if len(x) == 1 else f"{len(x)} images"
    label = f"{title} in whole numbers, {images}{threads.words}"
    found: Found = {f"{row}{threads.suffix}": (1e3 * float(np.median(times[:, 0])), Wanted(label, "ms"))}
    for i, (peer, aim) in enumerate(aims.items(), start=1):
        over = Wanted(f"{label}, time of {sides[peer][1]} over it", "x", aim)
        found[f"{row}_{peer}{threads.suffix}"] = ratio(times, i, 0), over
    return found


def numpys_integers(rng: np.random.Generator, seconds: float) -> Found:
    """The product of one layer with whole numbers in NumPy."""
    a, b = rng.integers(0, 256, (1024, 288)), rng.integers(-127, 128, (288, 64))
    functions = [partial(np.matmul, a.astype(dtype), b.astype(dtype)) for dtype in (np.int32, np.float32)]
    np.testing.assert_array_equal(*(f() for f in functions))
    what = "NumPy's matrix product of whole numbers, 1024 x 288 x 64, int32: its time over that of float32"
    return {"numpy_integers": (ratio(timer(rng, seconds).rounds(functions), 0, 1), Wanted(what, "x"))}


def on_path(path: str, network: int8.Network, codes: np.ndarray) -> np.ndarray:
    """Run a network with the named way to multiply."""
    with dot_path(path):
        return network(codes)


def paths(shape: Shape, rng: np.random.Generator, seconds: float) -> Found:
    """One convolution in all ways that this processor has."""
    n, c_in, size, c_out = shape
    network = int8.Network([random_layer(shape, rng).spec()], (c_in, size, size))
    codes = rng.integers(0, 256, (n, size, size, c_in), np.uint8).transpose(0, 3, 1, 2)
    functions = [partial(on_path, path, network, codes) for path in paths_here()]
    first, *others = (f() for f in functions)
    for other in others:
        np.testing.assert_array_equal(first, other)
    medians = np.median(timer(rng, seconds).rounds(functions), axis=0)
    what = f"3 x 3 convolution of 8-bit codes, batch {n}, {c_in} to {c_out} channels, {size} x {size}, path"
    speeds = 2e-9 * 9 * c_in * c_out * n * size * size / medians
    return {
        f"path_{path}": (float(speed), Wanted(f'{what} "{path}"', "GOP/s"))
        for path, speed in zip(paths_here(), speeds, strict=True)
    }


def main(seed: int, seconds: float) -> None:
    """Measure and print."""
    import torch

    torch.set_num_threads(1)
    onnxruntime.set_default_logger_severity(3)
    rng = np.random.default_rng(seed)
    calibration, images = data.fashion_mnist("train")[0][:256], data.fashion_mnist("test")[0]
    rows: Found = {}
    with torch.no_grad(), no_grad(), backend("numba"):
        for shape in CONVOLUTIONS:
            rows |= convolution(shape, rng, 0.11 * seconds)
        for batch, least in ((32, 3.0), (1, None)):
            aims = {"numpy": 4.0, "fp32": least, "ort": 1.0}
            model, x = zoo.load("reference_cnn"), images[:batch]
            rows |= whole(f"cnn_{batch}", "Reference CNN", model, calibration, x, aims, rng, 0.12 * seconds)
        noise, x = np.split(rng.standard_normal((256 + 32, 1, 28, 28), np.float32), [256])
        title = "CNN of 32, 64 and 128 channels"
        rows |= whole("wide_32", title, wide_cnn(), noise, x, {"fp32": 4.0}, rng, 0.1 * seconds)
        rows |= numpys_integers(rng, 0.05 * seconds)
        rows |= paths(CONVOLUTIONS[1], rng, 0.08 * seconds)
        with all_threads() as threads:
            if threads.count > 1:
                rows |= convolution(CONVOLUTIONS[1], rng, 0.06 * seconds, threads)
                model, x, aims = zoo.load("reference_cnn"), images[:32], dict.fromkeys(("numpy", "fp32", "ort"))
                rows |= whole("cnn_32", "Reference CNN", model, calibration, x, aims, rng, 0.07 * seconds, threads)
    report(rows)


if __name__ == "__main__":
    with threadpool_limits(1):
        main(int(sys.argv[1]), float(sys.argv[2]))
