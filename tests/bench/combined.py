"""One launch of the times of several optimisations at once: `python -m tests.bench.combined SEED SECONDS`; its rows:

* `cnn_fp32`, `cnn_filters`, ...: milliseconds for 32 images on one thread, of the reference CNN with what the name
  says, and with several of them; `..._speedup`: the plan's time over it;
* `gpt_none`, `gpt_cache`, ...: milliseconds for 64 new tokens behind a prompt of 64, greedy, as it ships and with what
  the name says; `..._speedup`: the time of nothing over it;
* `..._of_product`, for each combination: its speed-up over the product of the single ones. Where that is within 25 %
  of 1, they multiply.

A GPT's cache of 8 bits is no alternative to none but to the other cache: its own speed-up is that over the other.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tests.bench.launches import Wanted, report
from tests.bench.turns import ratio, timer
from tinytorch import Tensor, backend, data, nn, no_grad, zoo
from tinytorch.acceleration import Plan
from tinytorch.benchmarks.tinymlperf.execution import SPARSE_FROM
from tinytorch.caching import QuantizedKVCache
from tinytorch.compression import LayerAdaptivePruner, MagnitudePruner, sparse_linears, study, to_sparse
from tinytorch.quantization import INT8Quantizer, quantize_dynamic

Found = dict[str, tuple[float, Wanted]]

PROMPT, NEW = 64, 64
TEXT_ZEROS = 0.9  # more than the GPT bears without being trained on: here it is time that counts
LEAST, MOST = 0.75, 1.25  # of the product: within 25 % they multiply

CNN_WORDS = {
    "fp32": "compiled plan", "filters": "half of the filters", "int8": "whole numbers of 8 bits",
    "sparse": "90 % of weights zero", "filters_int8": "half of the filters, whole numbers",
    "filters_sparse": "half of the filters, 90 % of the rest zero",
    "sparse_int8": "90 % of weights zero, whole numbers",
}  # fmt: skip
GPT_WORDS = {
    "none": "all positions anew", "cache": "cache", "int8": "weights of 8 bits, all positions anew",
    "sparse": "90 % of weights zero, all positions anew", "cache_int8": "cache, weights of 8 bits",
    "cache_cache8": "cache of 8 bits", "cache_int8_cache8": "cache of 8 bits, weights of 8 bits",
    "cache_sparse": "cache, 90 % of weights zero", "cache_sparse_cache8": "cache of 8 bits, 90 % of weights zero",
}  # fmt: skip


def whole(model: nn.Sequential) -> Any:
    """Return a CNN in whole numbers."""
    images = data.fashion_mnist("train").images[:256]
    return INT8Quantizer().calibrate(model, images, progress=False).convert(model)


def cnns(x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return by name what is timed, after it was found right."""
    small, pruned = study.load("filters_50"), study.load("adaptive_90")
    both = LayerAdaptivePruner(0.9).prepare(study.load("filters_50")).finalize().eval()
    floats = {"fp32": zoo.load("reference_cnn"), "filters": small, "sparse": pruned, "filters_sparse": both}
    made: dict[str, Any] = {name: Plan(floats[name], x.shape[1:]) for name in ("fp32", "filters")}
    made |= {name: to_sparse(floats[name], SPARSE_FROM) for name in ("sparse", "filters_sparse")}
    for name, model in made.items():
        found = model(x)
        found = found.data if isinstance(found, Tensor) else found
        np.testing.assert_allclose(found, floats[name](Tensor(x)).data, rtol=0, atol=1e-3)
    for name, before in (("int8", "fp32"), ("filters_int8", "filters"), ("sparse_int8", "sparse")):
        made[name] = whole(floats[before])
        result = made[name](x).data
        with backend("numpy"):
            np.testing.assert_array_equal(result, made[name](x).data)
        expected = floats[before](Tensor(x)).data
        np.testing.assert_allclose(result, expected, rtol=0, atol=0.05 * float(np.abs(expected).max()))
    return {name: partial(made[name], x) for name in CNN_WORDS}


def gpts(prompt: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return by name what is timed, after it was found right: with a cache it writes what it writes without."""
    model = zoo.load("char_gpt")
    pruned = MagnitudePruner(TEXT_ZEROS).prepare(zoo.load("char_gpt")).finalize().eval()
    models = {"": model, "int8": quantize_dynamic(model), "sparse": sparse_linears(pruned, SPARSE_FROM)}
    many = np.concatenate([prompt, model.generate(prompt, 8, top_k=1)[-8:]])[None]
    near: dict[str, tuple[nn.Module, float]] = {"int8": (model, 0.1), "sparse": (pruned, 1e-4)}
    for name, (before, tolerance) in near.items():
        expected = before(many).data
        found = models[name](many).data
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * float(np.abs(expected).max()))
    for each in models.values():
        for kind, tolerance in ((nn.KVCache, 0.01), (QuantizedKVCache, 0.1)):
            caches, expected = kind.of(each), each(many).data
            steps = [each(many[:, :-8], caches).data]
            steps += [each(many[:, i : i + 1], caches).data for i in range(many.shape[1] - 8, many.shape[1])]
            worst = tolerance * float(np.abs(expected).max())
            np.testing.assert_allclose(np.concatenate(steps, axis=1), expected, rtol=0, atol=worst)

    def written(of: Any, kind: Any) -> Callable[[], Any]:
        caches = None if kind is None else kind.of(of)

        def write() -> Any:
            if caches is None:
                return of.generate(prompt, NEW, top_k=1, use_cache=False)
            caches.reset()
            return of.generate(prompt, NEW, top_k=1, cache=caches)

        return write

    made = {}
    for name in GPT_WORDS:
        parts = name.split("_")
        of = models["int8" if "int8" in parts else "sparse" if "sparse" in parts else ""]
        made[name] = written(of, QuantizedKVCache if "cache8" in parts else nn.KVCache if "cache" in parts else None)
    return made


def rows(run: str, words: Mapping[str, str], times: np.ndarray, what: str, more: Mapping[str, float]) -> Found:
    """Lay out times (rounds, names): each, over the first, and of combinations over the product of their parts.

    `more` has the speed-ups of parts that are not measured alone.
    """
    names, found = list(words), dict[str, tuple[float, Wanted]]()
    speedups = {name: ratio(times, 0, number) for number, name in enumerate(names)} | dict(more)
    for number, name in enumerate(names):
        label = f"{what}: {words[name]}"
        found[f"{run}_{name}"] = 1e3 * float(np.median(times[:, number])), Wanted(label, "ms")
        if number:
            over = Wanted(f"{label}: the time of {words[names[0]]} over it", "x")
            found[f"{run}_{name}_speedup"] = speedups[name], over
        parts = name.split("_")
        if len(parts) > 1:
            product = math.prod(speedups[part] for part in parts)
            alone = Wanted(f"{label}: its speed-up over the product of those of its parts", "x", LEAST, MOST)
            found[f"{run}_{name}_of_product"] = speedups[name] / product, alone
    return found


def main(seed: int, seconds: float) -> None:
    """Measure and print."""
    rng, found = np.random.default_rng(seed), dict[str, tuple[float, Wanted]]()
    x = data.fashion_mnist("test").images[:32]
    prompt = data.shakespeare("held-out").tokens[:PROMPT].astype(np.int64)
    with no_grad(), backend("numba"):
        times = timer(rng, 0.3 * seconds).rounds(list(cnns(x).values()))
        found |= rows("cnn", CNN_WORDS, times, "Reference CNN, 32 images", {})
        times = timer(rng, 0.7 * seconds).rounds(list(gpts(prompt).values()))
        names = list(GPT_WORDS)
        cache8 = ratio(times, names.index("cache"), names.index("cache_cache8"))
        found |= rows("gpt", GPT_WORDS, times, f"GPT, {NEW} new tokens behind {PROMPT}", {"cache8": cache8})
    report({name: row for name, row in found.items() if name != "gpt_cache_cache8_of_product"})  # 1 by definition


if __name__ == "__main__":
    with threadpool_limits(1):
        main(int(sys.argv[1]), float(sys.argv[2]))
