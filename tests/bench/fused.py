"""One launch of the measurements of fused elementwise kernels: `python -m tests.bench.fused SEED SECONDS`.

* `relu`, `gelu`, `scale_shift_relu`, `layer_norm`, `softmax`: the time to copy an array of 24 MiB, the least that
  reading and writing it can take, over the time of the kernel on it, in percent;
* `layer_norm_numpy`, ...: the time of the same kernel under backend "numpy" over ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from tests.bench.launches import Wanted, report
from tests.bench.turns import ratio, timer
from tinytorch import backend
from tinytorch.kernels import activation, normalization, softmax

# float32: 24 MiB; the C library has larger arrays come fresh from the system, which costs more than any kernel
ROWS, COLUMNS, CHANNELS = 6144, 1024, 64


def kernels(rng: np.random.Generator) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """The kernels as functions of one array (ROWS, COLUMNS)."""
    weight, bias = rng.standard_normal((2, COLUMNS), np.float32)

    def as_pixels(x: np.ndarray) -> np.ndarray:
        return x.reshape(-1, 32, 32, CHANNELS).transpose(0, 3, 1, 2)

    return {
        "relu": activation.relu,
        "gelu": activation.gelu,
        "scale_shift_relu": lambda x: normalization.scale_shift(as_pixels(x), weight[:CHANNELS], bias[:CHANNELS], True),
        "layer_norm": lambda x: normalization.layer_norm(x, weight, bias, 1e-5)[0],
        "softmax": softmax.softmax,
    }


def under_numpy(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """Call a kernel's NumPy version."""
    with backend("numpy"):
        return function(x)


def main(seed: int, seconds: float) -> None:
    """Measure and print."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, COLUMNS), np.float32)
    rows: dict[str, tuple[float, Wanted]] = {}
    with backend("numba"):
        for name, function in kernels(rng).items():
            np.testing.assert_allclose(function(x), under_numpy(function, x), atol=1e-5)
            functions = [partial(function, x), x.copy, partial(under_numpy, function, x)]
            times = timer(rng, 0.2 * seconds).rounds(functions)
            title = f"{name}, 24 MiB"
            rows[name] = (100 * ratio(times, 1, 0), Wanted(f"{title}: time of a copy of the array over ours", "%", 80))
            rows[f"{name}_numpy"] = (ratio(times, 2, 0), Wanted(f"{title}: NumPy's time over ours", "x"))
    report(rows)


if __name__ == "__main__":
    with threadpool_limits(1):
        main(int(sys.argv[1]), float(sys.argv[2]))
