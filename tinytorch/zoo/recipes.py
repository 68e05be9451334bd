"""How each model of the zoo was trained: everything that its weights depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch import data, nn
from tinytorch.nn.functional import cross_entropy
from tinytorch.tensor import Tensor
from tinytorch.zoo.evaluation import accuracy, anomaly_auc, nats_per_token
from tinytorch.zoo.models import anomaly_autoencoder, char_gpt, reference_cnn

Batch = tuple[np.ndarray, np.ndarray]


def _cross_entropy(model: Any, batch: Batch) -> Tensor:
    inputs, targets = batch
    return cross_entropy(model(Tensor(inputs) if inputs.dtype.kind == "f" else inputs), targets)


def _squared_error(model: Any, batch: Batch) -> Tensor:
    inputs = batch[0]
    difference = model(Tensor(inputs)) - Tensor(inputs.reshape(len(inputs), -1))
    return (difference * difference).mean()


@dataclass(frozen=True)
class Recipe:
    """A model, its data and its schedule. A batch depends on seed and step alone, so that training can resume.

    Attributes
    ----------
    build
        Makes the model, its weights drawn from a generator.
    batches
        A function of the seed, which returns one of the step: inputs and targets of a batch, (N, ...) each.
    evaluate, metric
        Measures a model; the name, the unit and the meaning of the number that it returns.
    dataset
        Whose card is copied into the model's card.
    unit
        What one entry of a batch is, for the progress bar.
    steps, warmup_steps
        Of AdamW, and how many of them the learning rate rises: see `warmup_cosine`.
    lr, betas, weight_decay
        Of `AdamW`; `lr` is the highest.
    max_grad_norm
        See `clip_grad_norm_`.
    loss
        Of a model and a batch.
    """

    build: Callable[[np.random.Generator], Any]
    batches: Callable[[int], Callable[[int], Batch]]
    evaluate: Callable[[Any], float]
    metric: dict[str, str]
    dataset: str
    unit: str
    steps: int
    warmup_steps: int
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    loss: Callable[[Any, Batch], Tensor] = _cross_entropy


_CNN_BATCH, _GPT_BATCH, _GPT_LENGTH = 64, 16, 256


def _image_batches(seed: int) -> Callable[[int], Batch]:
    images, labels, _ = data.fashion_mnist("train-full")
    per_epoch = len(images) // _CNN_BATCH
    known: dict[int, np.ndarray] = {}

    def batch(step: int) -> Batch:
        epoch, at = divmod(step, per_epoch)
        if epoch not in known:
            known.clear()
            known[epoch] = np.random.default_rng([seed, epoch]).permutation(len(images))
        chosen = known[epoch][at * _CNN_BATCH : (at + 1) * _CNN_BATCH]
        return images[chosen], labels[chosen]

    return batch


def _sneaker_batches(seed: int) -> Callable[[int], Batch]:
    images, labels, classes = data.fashion_mnist("train-full")
    sneakers = np.flatnonzero(labels == classes.index("sneaker"))

    def batch(step: int) -> Batch:
        chosen = np.random.default_rng([seed, step]).choice(sneakers, _CNN_BATCH)
        return images[chosen], labels[chosen]

    return batch


def _text_batches(seed: int) -> Callable[[int], Batch]:
    tokens = data.shakespeare("train").tokens
    return lambda step: data.windows(tokens, _GPT_BATCH, _GPT_LENGTH, np.random.default_rng([seed, step]))


def _evaluate_cnn(model: nn.Module) -> float:
    return round(100 * accuracy(model, data.fashion_mnist("test")), 4)


def _evaluate_autoencoder(model: nn.Module) -> float:
    test = data.fashion_mnist("test")
    return anomaly_auc(model, test, test.classes.index("sneaker"))


def _evaluate_gpt(model: nn.GPT) -> float:
    return nats_per_token(model, data.shakespeare("held-out"))


RECIPES = {
    "reference_cnn": Recipe(
        build=reference_cnn,
        batches=_image_batches,
        evaluate=_evaluate_cnn,
        metric={"name": "accuracy", "unit": "%", "what": "right answers on the 10,000 test images"},
        dataset="fashion_mnist",
        unit="images",
        steps=10 * (60_000 // _CNN_BATCH),  # ten epochs
        warmup_steps=500,
        lr=2e-3,
    ),
    "char_gpt": Recipe(
        build=char_gpt,
        batches=_text_batches,
        evaluate=_evaluate_gpt,
        metric={"name": "loss", "unit": "nats/char", "what": "cross-entropy on the two held-out plays"},
        dataset="shakespeare",
        unit="tokens",
        steps=4000,
        warmup_steps=100,
        lr=2e-3,
        betas=(0.9, 0.99),
        weight_decay=0.1,
    ),
    "anomaly_autoencoder": Recipe(
        build=anomaly_autoencoder,
        batches=_sneaker_batches,
        evaluate=_evaluate_autoencoder,
        metric={
            "name": "AUC",
            "unit": "of 1",
            "what": "the 1,000 sneakers among the test images against the others",
        },
        dataset="fashion_mnist",
        unit="images",
        steps=4000,
        warmup_steps=100,
        lr=2e-3,
        loss=_squared_error,
    ),
}


def recipe(name: str) -> Recipe:
    """Return the recipe of a model. A KeyError lists the names if there is none of this name."""
    if name not in RECIPES:
        raise KeyError(f"no model {name!r} in the zoo; there are: {', '.join(RECIPES)}")
    return RECIPES[name]
