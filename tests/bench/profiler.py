"""What watching costs: time with a `ProfilerContext` over time without, on the reference CNN. Run `19_profiler`.

* `inference`: the shipped model on 32 images, without gradients;
* `training`: a step on 64 images: forward, loss, backward and AdamW.

Each side does several passes at a time, as a profile does: what installing takes is part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from tests.bench.training import Rows, row, verdict
from tests.bench.turns import timer
from tinytorch import Tensor, no_grad, optim, zoo
from tinytorch.nn.functional import cross_entropy
from tinytorch.profiling.profiler.context import ProfilerContext

AIM = 1.05  # times the time without
PASSES = 10


def profiler(rng: np.random.Generator, budget: float) -> Rows:
    """Measure both. An AssertionError if a model computes something else while it is watched, or is not recorded."""
    rows: Rows = {}
    for name, make, what in (
        ("inference", _inference, "inference on 32 images"),
        ("training", _training, "a training step on 64 images"),
    ):
        model, once = make(rng)
        prof = ProfilerContext(model)
        plain, watched = partial(_passes, once), partial(_watched, prof, once)
        check = partial(_check, prof, once)
        sides = {"plain": plain, "watched": watched}
        result = timer(rng, budget / 2).compare(sides, check=check)
        aim = f"aim at most {AIM:g}: {verdict(result.ratio, AIM)}"
        title = f"Reference CNN, {what}, time under a profiler over time without, one thread"
        rows[name] = row(result.ratio, "x", f"{title} ({aim})")
    return rows


def _inference(rng: np.random.Generator) -> tuple[object, Callable[[], Tensor]]:
    model = zoo.load("reference_cnn")
    x = Tensor(rng.standard_normal((32, 1, 28, 28), np.float32))

    def once() -> Tensor:
        with no_grad():
            return model(x)

    return model, once


def _training(rng: np.random.Generator) -> tuple[object, Callable[[], Tensor]]:
    model = zoo.load("reference_cnn").train()
    x, labels = Tensor(rng.standard_normal((64, 1, 28, 28), np.float32)), rng.integers(0, 10, 64)
    # a rate so small that the weights stay what they are: each step is the same work
    optimizer = optim.AdamW(model.parameters(), lr=1e-30, weight_decay=0.0)

    def once() -> Tensor:
        loss = cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return model, once


def _passes(once: Callable[[], Tensor]) -> None:
    for _ in range(PASSES):
        once()


def _watched(prof: ProfilerContext, once: Callable[[], Tensor]) -> None:
    with prof:
        _passes(once)


def _check(prof: ProfilerContext, once: Callable[[], Tensor]) -> None:
    expected = once().data
    with prof:
        found = once().data
    np.testing.assert_array_equal(found, expected)
    assert sum(event.parent < 0 for event in prof.events) >= 1, "nothing was recorded"
