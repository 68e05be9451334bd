"""What is studied: the ways to make the reference CNN smaller, and how each result is trained on.

One recipe for all: four epochs on 60,000 images, towards the labels and the outputs of the model as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from tinytorch import data, nn, zoo
from tinytorch.compression.fine_tuning import fine_tune
from tinytorch.compression.layer_adaptive import LayerAdaptivePruner
from tinytorch.compression.low_rank import factorize
from tinytorch.compression.masks import Pruner
from tinytorch.compression.pruner import MagnitudePruner
from tinytorch.compression.schedule import GradualSchedule
from tinytorch.compression.semi_structured import SemiStructuredPruner
from tinytorch.compression.structured import prune_filters
from tinytorch.compression.study.shipped import build

RECIPE: dict[str, Any] = {"lr": 1e-2, "batch_size": 64, "temperature": 2.0, "alpha": 0.9, "weight_decay": 0.0}
EPOCHS, SHORT, STUDENT_EPOCHS = 4, 2, 8
LEVELS = (50, 70, 80, 90, 95, 98)  # percent of zeros
AIMS = {  # points that may be lost at most, at every seed
    "global_70": 0.3, "adaptive_90": 0.8, "adaptive_95": 1.5, "filters_30": 0.6, "filters_50": 1.2, "physical_70": 1.5,
}  # fmt: skip
_STUDENT = {"filters": [8, 16, 32], "linear": [[288, 32], [32, 10]]}

Shrink = Callable[[], tuple[nn.Sequential, Pruner | None]]


@dataclass(frozen=True)
class Point:
    """One row of the study.

    Attributes
    ----------
    words
        What it is.
    make
        seed -> model. A seed orders the training images, and chooses initial weights where they are random.
    epochs
        Of training; without any, all seeds give one model.
    images
        The split of Fashion-MNIST to train on.
    ships
        Whether the model of seed 0 is kept.
    """

    words: str
    make: Callable[[int], nn.Sequential]
    epochs: int = 0
    images: str = "train-full"
    ships: bool = False


def points() -> dict[str, Point]:
    """Return all rows by name; `NAME_before` is what `NAME` was before training on."""
    table = {"fp32": Point("the reference CNN", lambda seed: zoo.load("reference_cnn"))}
    for name, (words, shrink) in _shrinks().items():
        table[f"{name}_before"] = Point(f"{words}, not trained on", partial(_untrained, shrink))
    for name in (*(f"global_{level}" for level in LEVELS), "layer_70", "layer_90"):
        table[name] = _trained(*_shrinks()[name], ships=name != "layer_90")
    for level in (90, 95, 98):
        words = f"{level} % of weights zero by layer-adaptive score, growing over the first epoch"
        grown = partial(_gradual, LayerAdaptivePruner, level)
        table[f"adaptive_{level}"] = _trained(words, grown, ships=True)
        if level == 95:
            table[f"adaptive_{level}_labels"] = _trained(words, grown, teacher=False)
    for name in ("semi_structured", "filters_30", "filters_50", "filters_70", "low_rank", "physical_70"):
        table[name] = _trained(*_shrinks()[name], ships=True)
    for level in (90, 95, 98):
        words, at_once = _shrinks()[f"global_{level}"]
        table[f"oneshot_{level}_short"] = _trained(f"{words} at once", at_once, epochs=SHORT)
        grown = partial(_gradual, MagnitudePruner, level)
        table[f"gradual_{level}_short"] = _trained(f"{words}, growing over the first epoch", grown, epochs=SHORT)
    for name, teacher in (("student_labels", False), ("student_teacher", True)):
        make = partial(_student, teacher)
        words = f"half of the filters, 32 hidden numbers, {_how(STUDENT_EPOCHS, teacher)} from random weights"
        table[name] = Point(words, make, STUDENT_EPOCHS, ships=teacher)
    table["shipped_70"] = _trained(*_shrinks()["global_70"], epochs=1, split="train")
    return table


def _shrinks() -> dict[str, tuple[str, Shrink]]:
    """Return by name in words and as a function what is done before training on."""
    ways: dict[str, tuple[str, Shrink]] = {}
    for scope, words in (("global", "the smallest of the model"), ("layer", "the smallest of each layer")):
        for level in LEVELS:
            pruner = partial(MagnitudePruner, level / 100, scope)
            ways[f"{scope}_{level}"] = (f"{level} % of weights zero, {words}", partial(_pruned, pruner))
    for level in LEVELS:
        words = f"{level} % of weights zero by layer-adaptive score"
        ways[f"adaptive_{level}"] = words, partial(_pruned, partial(LayerAdaptivePruner, level / 100))
    ways["semi_structured"] = "2 of each 4 weights zero", partial(_pruned, SemiStructuredPruner)
    for level in (30, 50, 70):
        ways[f"filters_{level}"] = f"{level} % of each convolution's filters removed", partial(_without, level / 100)
    ways["low_rank"] = "linear layers of low rank, 90 % of their energy", partial(_without, 0.0, 0.9)
    words = "20 % of filters removed, linear layers of low rank, 75 % of their energy"
    ways["physical_70"] = words, partial(_without, 0.2, 0.75)
    return ways


def _pruned(pruner: Callable[[], Pruner]) -> tuple[nn.Sequential, Pruner]:
    model = zoo.load("reference_cnn")
    return model, pruner().prepare(model)


def _gradual(kind: Callable[..., Pruner], level: int) -> tuple[nn.Sequential, Pruner]:
    per_epoch = -(-60_000 // RECIPE["batch_size"])
    return _pruned(lambda: kind(level / 100, schedule=GradualSchedule(0, per_epoch)))


def _without(ratio: float, energy: float = 0.0) -> tuple[nn.Sequential, None]:
    smaller = prune_filters(zoo.load("reference_cnn"), ratio)
    return (factorize(smaller, energy) if energy else smaller), None


def _untrained(shrink: Shrink, seed: int) -> nn.Sequential:
    model, pruner = shrink()
    if pruner is not None:
        pruner.finalize()
    model.eval()
    return model


def _trained(
    words: str, shrink: Shrink, epochs: int = EPOCHS, split: str = "train-full", teacher: bool = True, **options: bool
) -> Point:
    def make(seed: int) -> nn.Sequential:
        model, pruner = shrink()
        _train(model, pruner, epochs, split, teacher, np.random.default_rng(seed))
        return model

    of = "" if split == "train-full" else " on 10,000 images"
    return Point(f"{words}, {_how(epochs, teacher)}{of}", make, epochs, split, **options)


def _student(teacher: bool, seed: int) -> nn.Sequential:
    rng = np.random.default_rng(seed)
    model = build(_STUDENT, rng)
    _train(model, None, STUDENT_EPOCHS, "train-full", teacher, rng)
    return model


def _train(
    model: nn.Sequential, pruner: Pruner | None, epochs: int, split: str, teacher: bool, rng: np.random.Generator
) -> None:
    before = zoo.load("reference_cnn") if teacher else None
    fine_tune(model, images(split), pruner=pruner, teacher=before, epochs=epochs, rng=rng, **RECIPE)
    if pruner is not None:
        pruner.finalize()


@cache
def images(split: str) -> data.Images:
    """Return a split of Fashion-MNIST, read once. A DataError says what to install."""
    return data.fashion_mnist(split)


def _how(epochs: int, teacher: bool) -> str:
    plural = "" if epochs == 1 else "s"
    return f"{epochs} epoch{plural} of training towards {'labels and teacher' if teacher else 'labels alone'}"
