"""One launch of what the page "Everything at once" draws: `python -m tests.bench.everything SEED SECONDS`.

One thread, compiled kernels, each result found right first. Its rows:

* `cnn_REMOVED_BITS`: microseconds an image, 32 at once, of the reference CNN without some of its filters or weights
  (`REMOVED` as the study of chapter 17 names its models), in floats (32) or in whole numbers (8);
* `gpt_ZEROS_BITS_LENGTH`: microseconds of the step that ends a text of so many letters, one text, with the cache, of
  the GPT with so many percent of its weights zero, in floats or with weights of 8 bits;
* `roof_float`, `roof_int8`: billions of operations per second, and `roof_L2`, `roof_L3`: of bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tests.bench.launches import Wanted, report
from tests.bench.steps import step_of
from tests.bench.turns import timer
from tinytorch import Tensor, backend, data, nn, no_grad
from tinytorch.acceleration import Plan, Roofline
from tinytorch.benchmarks.combination import REMOVED, ZEROS, smaller_cnn, smaller_gpt, trained_cnn

Found = dict[str, tuple[float, Wanted]]
LENGTHS = (16, 32, 64, 128, 256)
BITS = (32, 8)  # codes of 4 bits take a byte, too: one time for both
IMAGES = 32


def cnns(x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return by row what is timed, after it was found near the floats."""
    made = {}
    for removed in REMOVED:
        floats = trained_cnn(removed)
        expected = floats(Tensor(x)).data
        for bits in BITS:
            model: Any = smaller_cnn(removed, bits)
            if isinstance(model, nn.Sequential):
                model = Plan(model, x.shape[1:])
            found = model(x)
            worst = (1e-4 if bits == 32 else 0.1) * float(np.abs(expected).max())
            np.testing.assert_allclose(found.data if isinstance(found, Tensor) else found, expected, rtol=0, atol=worst)
            made[f"cnn_{removed}_{bits}"] = partial(model, x)
    return made


def gpts(text: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return by row what is timed: the last step, after what it says was found near what floats say of the whole."""
    made = {}
    for zeros in ZEROS:
        expected = smaller_gpt(zeros, 32)(text).data
        for bits in BITS:
            model = smaller_gpt(zeros, bits)
            cache = nn.KVCache.of(model, 1)
            model(text, cache)
            for length in LENGTHS:
                step = step_of(model, cache, text[:, length - 1 : length], length)
                made[f"gpt_{zeros}_{bits}_{length}"] = step
                worst = (1e-4 if bits == 32 else 0.1) * float(np.abs(expected).max())
                np.testing.assert_allclose(step(), expected[:, length - 1], rtol=0, atol=worst)
    return made


def main(seed: int, seconds: float) -> None:
    """Measure and print."""
    rng = np.random.default_rng(seed)
    found: Found = {}
    roofs = Roofline.measure(quick=True, progress=False)
    assert roofs.peak_int8 is not None
    found["roof_float"] = roofs.peak_flops / 1e9, Wanted("Roof of float32", "GFLOP/s")
    found["roof_int8"] = roofs.peak_int8 / 1e9, Wanted("Roof of products of bytes", "GOP/s")
    for name in ("L2", "L3"):
        bandwidth = roofs.cache_bandwidth.get(name, roofs.bandwidth)
        found[f"roof_{name}"] = bandwidth / 1e9, Wanted(f"Bytes that {name} delivers", "GB/s")
    x, text = data.fashion_mnist("test").images[:IMAGES], data.shakespeare("held-out").tokens[None, : LENGTHS[-1]]
    with no_grad(), backend("numba"):
        for functions, share, per, words in (
            (cnns(x), 0.3, IMAGES, "Microseconds an image"),
            (gpts(text.astype(np.int64)), 0.7, 1, "Microseconds of a step"),
        ):
            times = np.median(timer(rng, share * seconds).rounds(list(functions.values())), axis=0)
            for name, value in zip(functions, times, strict=True):
                found[name] = 1e6 * float(value) / per, Wanted(f"{words}: {name}", "µs")
    report(found)


if __name__ == "__main__":
    with threadpool_limits(1):
        main(int(sys.argv[1]), float(sys.argv[2]))
