"""What quantization costs the reference CNN in right answers, on all 10,000 test images. Run `16_accuracy`:

* `fp32`: before;
* `w8a8`, `w8a8_per_tensor`: weights and activations of 8 bits;
* `w4a8_minmax`, `w4a8_mse`, `w4a8_per_tensor`, the same for 3 and 2 bits: fewer bits for weights alone;
* `w4a4_minmax`, `w4a4_mse`, the same for 3 bits: and for activations, both by one observer;
* `w4a4_qat`, `w4a4_qat_teacher`, the same for 3 bits: after three epochs of training on the 10,000 images that ship,
  towards their labels, or also towards what the float model says;
* `w4a4_recovered`, `w4a4_recovered_teacher`, the same for 3 bits: how much of what the better of the two observers lost
  that training brought back.

Every row is the mean over the seeds 0, 1 and 2; its interval goes from the least to the greatest. A seed chooses the
256 calibration images and the order of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tests.bench.launches import TRIAL, verdict
from tests.bench.training import Rows
from tinytorch import data, nn, zoo
from tinytorch.quantization import INT8Quantizer, MinMaxObserver, MSEObserver, convert_qat, prepare_qat, train_qat
from tinytorch.zoo.evaluation import accuracy

SEEDS = 3
CALIBRATION = 256  # images
RECOVERED = 50.0  # percent that training has to bring back at least
LOST = {  # points, at most, after rounding alone
    "w8a8": 0.1, "w8a8_per_tensor": 0.1, "w4a8_mse": 1.0, "w4a8_per_tensor": 2.6, "w3a8_mse": 6.0, "w2a8_mse": 60.0,
}  # fmt: skip
_EPOCHS = 3

Trial = Callable[[int], float]  # seed -> percent of right answers


def calibration_images(seed: int) -> np.ndarray:
    """Return those of the shipped training images that this seed chooses."""
    images = data.fashion_mnist("train").images
    return images[np.random.default_rng(seed).permutation(len(images))[:CALIBRATION]]


def percent(model: nn.Module) -> float:
    """Return the right answers among all test images, in percent."""
    return 100 * accuracy(model, data.fashion_mnist("test"))


def after_training(seed: int, **options: Any) -> float:
    """Quantize the reference CNN with these options of `INT8Quantizer`, and return its right answers in percent."""
    model = zoo.load("reference_cnn")
    quantizer = INT8Quantizer(**options).calibrate(model, calibration_images(seed), progress=False)
    return percent(quantizer.convert(model))


def in_training(seed: int, bits: int, teacher: bool, images: int | None = None) -> float:
    """The same after quantization-aware training, weights and activations of so many bits."""
    model, shipped = zoo.load("reference_cnn"), data.fashion_mnist("train")
    prepared = prepare_qat(model, calibration_images(seed), bits=bits, weight_bits=bits, progress=False)
    train_qat(
        prepared, (shipped.images[:images], shipped.labels[:images]), teacher=model if teacher else None,
        epochs=_EPOCHS, rng=np.random.default_rng(seed), progress=False,
    )  # fmt: skip
    return percent(convert_qat(prepared))


def trials() -> Iterator[tuple[str, str, Trial]]:
    """Yield name, words and trial of every row but the fp32 model's and the shares recovered."""
    mse = {"weight_observer": MSEObserver}
    yield "w8a8", "weights and activations of 8 bits", after_training
    yield "w8a8_per_tensor", "the same, one scale to a layer's weights", partial(after_training, per_channel=False)
    for bits in (4, 3, 2):
        words = f"weights of {bits} bits, activations of 8"
        yield f"w{bits}a8_minmax", f"{words}, min-max", partial(after_training, weight_bits=bits)
        yield f"w{bits}a8_mse", f"{words}, least squares", partial(after_training, weight_bits=bits, **mse)
        one = partial(after_training, weight_bits=bits, per_channel=False)
        yield f"w{bits}a8_per_tensor", f"{words}, min-max, one scale to a layer's weights", one
    for bits in (4, 3):
        words, both = f"weights and activations of {bits} bits", {"bits": bits, "weight_bits": bits}
        for name, how, observer in (("minmax", "min-max", MinMaxObserver), ("mse", "least squares", MSEObserver)):
            trial = partial(after_training, observer=observer, weight_observer=observer, **both)
            yield f"w{bits}a{bits}_{name}", f"{words}, {how}", trial
        trained = f"{words}, {_EPOCHS} epochs of training with them"
        yield f"w{bits}a{bits}_qat", f"{trained}, labels", partial(in_training, bits=bits, teacher=False)
        taught = partial(in_training, bits=bits, teacher=True)
        yield f"w{bits}a{bits}_qat_teacher", f"{trained}, labels and the float model's outputs", taught


def accuracy_16(rng: np.random.Generator, budget: float) -> Rows:
    """Measure everything; in a trial with one seed, and no training. What is random has seeds of its own."""
    seeds = SEEDS if budget >= TRIAL else 1
    chosen = [(name, words, trial) for name, words, trial in trials() if budget >= TRIAL or "_qat" not in name]
    before = percent(zoo.load("reference_cnn"))
    make = on_all_cores if seeds > 1 else one_by_one
    found = make({name: trial for name, _, trial in chosen}, seeds)
    rows = {"fp32": _row([before], "Right answers, float32")}
    for name, words, _ in chosen:
        rows[name] = _row(found[name], f"Right answers, {words}{_aim(name, found[name], before)}")
    for bits in (4, 3):
        for kind in ("", "_teacher"):
            if f"w{bits}a{bits}_qat{kind}" in found:
                name, words = f"w{bits}a{bits}_recovered{kind}", " and the float model's outputs" if kind else ""
                rows[name] = _recovered(found, bits, kind, before, words)
    return rows


def one_by_one(chosen: Mapping[str, Trial], seeds: int) -> dict[str, list[float]]:
    """Make all trials, each with every seed."""
    return {name: [trial(seed) for seed in range(seeds)] for name, trial in chosen.items()}


def on_all_cores(chosen: Mapping[str, Trial], seeds: int) -> dict[str, list[float]]:
    """Do the same, side by side: nothing is timed here."""
    one_thread = {"initializer": threadpool_limits, "initargs": (1,)}
    pool = ProcessPoolExecutor(mp_context=get_context("spawn"), **one_thread)
    try:
        results = {name: [pool.submit(trial, seed) for seed in range(seeds)] for name, trial in chosen.items()}
        return {name: [result.result() for result in several] for name, several in results.items()}
    finally:
        pool.shutdown(cancel_futures=True)


def _recovered(found: dict[str, list[float]], bits: int, kind: str, before: float, words: str) -> dict[str, Any]:
    name = f"w{bits}a{bits}"
    untrained = max(np.mean(found[f"{name}_minmax"]), np.mean(found[f"{name}_mse"]))
    shares = [100 * (trained - untrained) / (before - untrained) for trained in found[f"{name}_qat{kind}"]]
    aim = f"aim at least {RECOVERED:g}: {verdict(min(shares), max(shares), RECOVERED)}"
    what = f"Of what {bits} bits for weights and activations lose, brought back by training, labels{words} ({aim})"
    return _row(shares, what)


def _aim(name: str, values: list[float], before: float) -> str:
    if name not in LOST:
        return ""
    word = verdict(min(values), max(values), before - LOST[name])
    return f" (aim at most {LOST[name]:g} points lost: {word})"


def _row(values: list[float], what: str) -> dict[str, Any]:
    """Make a row of `tinytorch.book.results`: the mean, the least and the greatest."""
    value, low, high = (round(float(f(values)), 2) for f in (np.mean, min, max))
    return {"value": value, "low": low, "high": high, "unit": "%", "what": what, "digits": 4}
