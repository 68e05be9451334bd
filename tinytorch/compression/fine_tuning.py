"""`fine_tune`: training on after a model was made smaller, with its zeros held and, if wanted, a teacher."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch import nn
from tinytorch.compression.distillation import distillation_loss
from tinytorch.compression.masks import Pruner
from tinytorch.data import Images
from tinytorch.nn.functional import cross_entropy
from tinytorch.tensor import Tensor
from tinytorch.zoo.fitting import fit


def fine_tune(
    model: nn.Module,
    data: Images | tuple[np.ndarray, np.ndarray],
    *,
    pruner: Pruner | None = None,
    teacher: nn.Module | None = None,
    epochs: int,
    lr: float = 1e-3,
    batch_size: int = 64,
    temperature: float = 4.0,
    alpha: float = 0.9,
    weight_decay: float = 0.0,
    rng: np.random.Generator,
    progress: bool = True,
) -> list[float]:
    """Train a model in place: AdamW, the learning rate falling along a half cosine, gradients clipped to norm 1.

    Afterwards it is in evaluation mode. Ctrl-C stops it; the zeros of the pruner hold then, too.

    Parameters
    ----------
    data
        Images, float32 (N, ...), and labels, class numbers (N,).
    pruner
        One that holds the model: its `step` follows each of the optimizer's, of which there are
        ``epochs * ceil(N / batch_size)``; a gradual schedule has to end within them. It still holds the model at the
        end.
    teacher
        A model whose outputs are learned too, by `distillation_loss` with `temperature` and `alpha`. They are computed
        once, in evaluation mode, before the training; so the model itself, as it is now, may be its teacher.
    epochs, batch_size
        How often all images are seen, and how many at once.
    lr, weight_decay
        Of `AdamW`; `lr` is where the learning rate begins.
    rng
        What shuffles the images.
    progress
        Whether to show a bar, if it takes more than a second.

    Returns
    -------
    list
        The mean loss of each epoch.

    Raises
    ------
    TypeError
        If the images are not float32.
    ValueError
        If there are none, or not as many labels, a number is out of range, or the pruner holds another model.
    RuntimeError
        If the pruner holds no model.
    FloatingPointError
        If the loss is not finite: the learning rate is too high.
    """
    if pruner is not None and pruner.model is not model:
        raise ValueError("the pruner holds another model than the one to train: prepare(model) has to be of this one")

    def loss_of(outputs: Tensor, labels: np.ndarray, wanted: np.ndarray | None) -> Tensor:
        if wanted is None:
            return cross_entropy(outputs, labels)
        return distillation_loss(outputs, wanted, labels, temperature, alpha)

    how: dict[str, Any] = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "weight_decay": weight_decay}
    how |= {"teacher": teacher, "rng": rng, "progress": progress}
    if pruner is None:
        return fit(model, data, loss_of, **how)
    try:
        return fit(model, data, loss_of, after_step=pruner.step, **how)
    finally:
        pruner.hold()  # Ctrl-C may have come between the optimizer's step and the pruner's
