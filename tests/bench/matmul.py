"""One launch of the measurements of matrix products, `python -m tests.bench.matmul SEED SECONDS`; rows:

* `peak`: measured float32 peak of one core, in GFLOP/s;
* `naive_256` ... `blas_256`: every rung of `tinytorch.kernels.matmul` on 256 x 256 matrices, in GFLOP/s, and
  `share_naive` ... `share_blas`: as a share of the peak;
* `best_over_naive`: the time of three Python loops over that of the fastest rung of our own;
* `1024x576x64_gflops`, `_share`, and `_numpy`, `_torch`, `_ort`: for each shape (M x K x N) our speed, its share of the
  peak, and the peer's time over ours; `1024x1024x1024_gflops_threads` and so on for two of them: on all threads.
"""

from __future__ import annotations

import sys
import time
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from tests.bench import onnx_peers
from tests.bench.launches import LAUNCHES, TRIAL, Wanted, report
from tests.bench.threads import ONE, Threads, all_threads
from tests.bench.turns import ratio, timer
from tinytorch.acceleration import Roofline
from tinytorch.kernels import matmul

SHAPES = ((1024, 576, 64), (4096, 288, 64), (1024, 1152, 128), (1024, 1024, 1024))
ON_ALL_THREADS = SHAPES[1], SHAPES[3]
SLOW = {
    "naive": matmul.matmul_naive,
    "reordered": matmul.matmul_reordered,
    "tiled": partial(matmul.matmul_tiled, tile_size=32),
}
FAST = {
    "vectorized": matmul.matmul_vectorized,
    "numba": matmul.matmul_numba,
    "simd": matmul.matmul_simd,
    "blas": matmul.matmul_blas,
}
Found = dict[str, tuple[float, Wanted]]


def ladder(rng: np.random.Generator, seconds: float, peak: float, n: int = 256) -> Found:
    """Every rung at n³; the slow ones are timed once, on a quarter of the rows, which is a quarter of the work."""
    a, b = (rng.standard_normal((n, n), np.float32) for _ in range(2))
    expected = np.float64(a) @ np.float64(b)
    times = {}
    part = n // 4
    for name, function in SLOW.items():
        start = time.perf_counter()
        result = function(a[:part], b)
        times[name] = (time.perf_counter() - start) * n / part
        np.testing.assert_allclose(result, expected[:part], atol=1e-3)
    for function in FAST.values():
        np.testing.assert_allclose(function(a, b), expected, atol=1e-3)
    medians = np.median(timer(rng, seconds).rounds([partial(f, a, b) for f in FAST.values()]), axis=0)
    times |= dict(zip(FAST, map(float, medians), strict=True))
    rows: Found = {}
    for name, t in times.items():
        speed = 2e-9 * n**3 / t
        rows[f"{name}_{n}"] = (speed, Wanted(f"matmul_{name}, {n} x {n}, one thread", "GFLOP/s"))
        rows[f"share_{name}"] = (100 * speed / peak, Wanted(f"matmul_{name}, {n} x {n}, of the measured peak", "%"))
    own = min(times["numba"], times["simd"])
    what = f"Our best matrix product over three Python loops, {n} x {n}"
    return rows | {"best_over_naive": (times["naive"] / own, Wanted(what, "x", 10_000))}


def beside_peers(
    shape: tuple[int, int, int], rng: np.random.Generator, seconds: float, peak: float, threads: Threads = ONE
) -> Found:
    """One shape against NumPy, PyTorch and onnxruntime."""
    import torch

    m, k, n = shape
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    ta, tb = torch.from_numpy(a), torch.from_numpy(b)
    session = onnx_peers.matmul(b, m)
    functions = [
        partial(matmul.matmul_simd, a, b),
        partial(np.matmul, a, b),
        partial(torch.matmul, ta, tb),
        partial(session.run, None, {"x": a}),
    ]
    ours, numpys, torchs, (orts,) = (f() for f in functions)
    for theirs in (numpys, torchs.numpy(), orts):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
    times = threads.rounds(functions, rng, seconds)
    speed, name, size = 2e-9 * m * k * n / float(np.median(times[:, 0])), f"{m}x{k}x{n}", f"{m} x {k} x {n}"
    title = f"matmul_simd, {size}{threads.words or ', one thread'}"
    rows: Found = {f"{name}_gflops{threads.suffix}": (speed, Wanted(title, "GFLOP/s"))}
    if threads is ONE:
        rows[f"{name}_share"] = 100 * speed / peak, Wanted(f"matmul_simd, {size}, of the measured peak", "%", 75)
    for i, (peer, title, aim) in enumerate(
        (("numpy", "NumPy", 1.0), ("torch", "PyTorch", 1.0), ("ort", "onnxruntime", 0.95))
    ):
        words = f"Matrix product {size}{threads.words}, {title}'s time over ours"
        rows[f"{name}_{peer}{threads.suffix}"] = (
            ratio(times, i + 1, 0),
            Wanted(words, "x", aim if threads is ONE else None),
        )
    return rows


def main(seed: int, seconds: float) -> None:
    """Measure and print."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    peak = Roofline.measure(quick=True, progress=False).peak_flops / 1e9
    rows: Found = {"peak": (peak, Wanted("Measured float32 peak of one core", "GFLOP/s"))}
    rows |= ladder(rng, 0.16 * seconds, peak, 256 if seconds >= TRIAL / LAUNCHES else 128)
    for shape in SHAPES:
        rows |= beside_peers(shape, rng, 0.16 * seconds, peak)
    with all_threads() as threads:
        for shape in ON_ALL_THREADS if threads.count > 1 else ():
            rows |= beside_peers(shape, rng, 0.1 * seconds, peak, threads)
    report(rows)


if __name__ == "__main__":
    with threadpool_limits(1):
        main(int(sys.argv[1]), float(sys.argv[2]))
