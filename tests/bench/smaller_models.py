"""One launch of the times of whole models that were made smaller: `python -m tests.bench.smaller_models SEED SECONDS`.

Its rows, all of 32 images on one thread: `NAME` for each model of the study, milliseconds through `to_sparse`, which
multiplies the zeros of a layer that has too few of them; `NAME_int8` for some, rounded to whole numbers of 8 bits, and
`NAME_int8_right`, their right answers; `..._dense`: the time of the compiled plan of the reference CNN over it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tests.bench.launches import Wanted, report
from tests.bench.turns import ratio, timer
from tinytorch import Tensor, backend, data, no_grad, zoo
from tinytorch.acceleration import Plan
from tinytorch.compression import study, to_sparse
from tinytorch.compression.study.points import points
from tinytorch.compression.study.run import percent
from tinytorch.quantization import INT8Quantizer

AIMS = {"global_90": 1.5, "adaptive_90": 1.5, "filters_50": 2.5}
ROUNDED = (
    "adaptive_90", "adaptive_95", "adaptive_98", "filters_30", "filters_50", "filters_70", "low_rank", "physical_70",
    "student_teacher",
)  # fmt: skip


def rounded(model: Any, images: np.ndarray) -> Any:
    """Return the model in whole numbers."""
    return INT8Quantizer().calibrate(model, images, progress=False).convert(model)


def contenders(x: np.ndarray) -> tuple[dict[str, tuple[Callable[[], Any], str]], dict[str, float]]:
    """Return by row what is timed, after it was found right, and what it is; and right answers in percent."""
    table, chosen, right = points(), dict[str, tuple[Callable[[], Any], str]](), dict[str, float]()
    images = data.fashion_mnist("train").images[:200]
    models = {name: study.load(name) for name in study.names()}
    for name, model in models.items():
        ours, words = to_sparse(model), table[name].words.rpartition(",")[0]
        np.testing.assert_allclose(ours(x).data, model(Tensor(x)).data, rtol=0, atol=1e-3)
        chosen[name] = partial(ours, x), words
    models["reference"] = zoo.load("reference_cnn")
    for name in (*ROUNDED, "reference"):
        network = rounded(models[name], images)
        result = network(x).data
        with backend("numpy"):
            np.testing.assert_array_equal(result, network(x).data)
        words = chosen[name][1] if name in chosen else "nothing removed"
        chosen[f"{name}_int8"] = partial(network, x), f"{words}, whole numbers of 8 bits"
        right[f"{name}_int8"] = percent(network)
    return chosen, right


def main(seed: int, seconds: float) -> None:
    """Measure and print."""
    rng, x = np.random.default_rng(seed), data.fashion_mnist("test").images[:32]
    with no_grad(), backend("numba"):
        chosen, right = contenders(x)
        plan = partial(Plan(zoo.load("reference_cnn"), x.shape[1:]), x)
        times = timer(rng, seconds).rounds([plan, *(function for function, _ in chosen.values())])
    rows = {"reference": (1e3 * float(np.median(times[:, 0])), Wanted("Reference CNN as it was, compiled plan", "ms"))}
    for number, (name, (_, words)) in enumerate(chosen.items(), start=1):
        label = f"Reference CNN, {words}"
        over = Wanted(f"{label}: the time of the plan over it", "x", AIMS.get(name))
        rows |= {name: (1e3 * float(np.median(times[:, number])), Wanted(label, "ms"))}
        rows |= {f"{name}_dense": (ratio(times, 0, number), over)}
        if name in right:
            rows[f"{name}_right"] = right[name], Wanted(f"{label}: right answers", "%")
    report(rows)


if __name__ == "__main__":
    with threadpool_limits(1):
        main(int(sys.argv[1]), float(sys.argv[2]))
