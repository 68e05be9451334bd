"""One launch of the measurements of convolutions and whole models: `python -m tests.bench.inference SEED SECONDS`.

* `conv_32x32x32x64_gflops` and `conv_32x32x32x64_best`, for batch x channels in x size x channels out: our 3 x 3
  convolution's speed, and the time of the better of PyTorch (channels last) and onnxruntime over ours;
* `cnn_1`, `cnn_1_torch`, `cnn_1_ort`: milliseconds of the reference CNN on one image in one compiled plan, and the
  times of PyTorch eager and of onnxruntime over it; `cnn_32` ... for 32 images;
* `..._threads` of the second convolution and of 32 images: the same on all threads;
* `mlp_naive`, `cnn_naive`, `gpt_naive`: the time of a model under backend "naive" over that under "numba".
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from tests.bench import onnx_peers
from tests.bench.launches import Wanted, report
from tests.bench.threads import ONE, Threads, all_threads
from tests.bench.turns import ratio, timer
from tinytorch import Tensor, backend, nn, no_grad, zoo
from tinytorch.acceleration import Plan
from tinytorch.kernels.conv import conv2d

CONVOLUTIONS = ((32, 32, 32, 64), (32, 64, 16, 64), (1, 64, 32, 64), (32, 3, 32, 16))
Found = dict[str, tuple[float, Wanted]]


def convolution(
    shape: tuple[int, int, int, int], rng: np.random.Generator, seconds: float, threads: Threads = ONE
) -> Found:
    """One 3 x 3 convolution with padding 1, images with their channels last on both sides."""
    import torch

    n, c_in, size, c_out = shape
    x = rng.standard_normal((n, size, size, c_in), np.float32).transpose(0, 3, 1, 2)
    weight = rng.standard_normal((c_out, c_in, 3, 3), np.float32)
    session, plain = onnx_peers.conv2d(weight, x.shape, 1), np.ascontiguousarray(x)
    tx, tw = (torch.from_numpy(a.copy()).to(memory_format=torch.channels_last) for a in (x, weight))
    functions = [
        partial(conv2d, x, weight, None, 1, 1),
        partial(torch.conv2d, tx, tw, padding=1),
        partial(session.run, None, {"x": plain}),
    ]
    ours, torchs, (orts,) = (f() for f in functions)
    for theirs in (torchs.numpy(), orts):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
    times = threads.rounds(functions, rng, seconds)
    flops, name = 2 * 9 * c_in * c_out * n * size * size, "x".join(map(str, shape))
    title = f"3 x 3 convolution, batch {n}, {c_in} to {c_out} channels, {size} x {size}{threads.words}"
    better = 1 if np.median(times[:, 1]) < np.median(times[:, 2]) else 2
    what = f"{title}, the better of PyTorch's and onnxruntime's time over ours"
    return {
        f"conv_{name}_gflops{threads.suffix}": (1e-9 * flops / float(np.median(times[:, 0])), Wanted(title, "GFLOP/s")),
        f"conv_{name}_best{threads.suffix}": (
            ratio(times, better, 0),
            Wanted(what, "x", 0.95 if threads is ONE else None),
        ),
    }


def whole_cnn(batch: int, rng: np.random.Generator, seconds: float, threads: Threads = ONE) -> Found:
    """The shipped CNN in one plan, against PyTorch eager and onnxruntime."""
    import torch

    from tests.bench import peers

    model = zoo.load("reference_cnn").eval()
    peer = peers.reference_cnn().eval()
    peers.copy_state(model.state_dict(), peer)
    x = rng.standard_normal((batch, 1, 28, 28), np.float32)
    session = onnx_peers.sequential(model, x.shape)
    functions = [
        partial(Plan(model, (1, 28, 28)), x),
        partial(peer, torch.from_numpy(x)),
        partial(session.run, None, {"x": x}),
    ]
    ours, torchs, (orts,) = (f() for f in functions)
    for theirs in (torchs.numpy(), orts):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    times, images = threads.rounds(functions, rng, seconds), "1 image" if batch == 1 else f"{batch} images"
    row, images = f"cnn_{batch}", f"{images}{threads.words}"
    milliseconds = 1e3 * float(np.median(times[:, 0])), Wanted(f"Reference CNN, inference, {images}", "ms")
    rows: Found = {f"{row}{threads.suffix}": milliseconds}
    for i, (peer, title, aim) in enumerate((("torch", "PyTorch eager", 1.0), ("ort", "onnxruntime", 0.9)), start=1):
        over = Wanted(f"Reference CNN, {images}, {title}'s time over ours", "x", aim if threads is ONE else None)
        rows[f"{row}_{peer}{threads.suffix}"] = ratio(times, i, 0), over
    return rows


def over_naive(
    name: str, title: str, function: Callable[[], Tensor], rng: np.random.Generator, seconds: float
) -> Found:
    """A model under "numba" over the same under "naive", which is timed once."""
    with backend("naive"):
        start = time.perf_counter()
        expected = function().data
        naive = time.perf_counter() - start
    np.testing.assert_allclose(function().data, expected, atol=1e-3)
    fast = float(np.median(timer(rng, seconds).rounds([function])))
    return {f"{name}_naive": (naive / fast, Wanted(f"{title}, backend naive over numba", "x", 100))}


def main(seed: int, seconds: float) -> None:
    """Measure and print."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    rows: Found = {}
    with torch.no_grad(), no_grad(), backend("numba"):
        for shape in CONVOLUTIONS:
            rows |= convolution(shape, rng, 0.12 * seconds)
        for batch in (1, 32):
            rows |= whole_cnn(batch, rng, 0.12 * seconds)
        with all_threads() as threads:
            if threads.count > 1:
                rows |= convolution(CONVOLUTIONS[1], rng, 0.06 * seconds, threads)
                rows |= whole_cnn(32, rng, 0.06 * seconds, threads)
        mlp = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
        vectors = Tensor(rng.standard_normal((8, 784), np.float32))
        images = Tensor(rng.standard_normal((2, 1, 28, 28), np.float32))
        cnn, gpt = zoo.load("reference_cnn").eval(), zoo.load("char_gpt").eval()
        ids = rng.integers(0, gpt.vocab_size, (1, 16))
        models = (
            ("mlp", "MLP 784-256-128-10, 8 vectors", lambda: mlp(vectors)),
            ("cnn", "Reference CNN, 2 images", lambda: cnn(images)),
            ("gpt", "GPT, 16 tokens", lambda: gpt(ids)),
        )
        for name, title, function in models:
            rows |= over_naive(name, title, function, rng, 0.05 * seconds)
    report(rows)


if __name__ == "__main__":
    with threadpool_limits(1):
        main(int(sys.argv[1]), float(sys.argv[2]))
