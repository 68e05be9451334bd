"""`fine_tune`: training on after a model was made smaller, with its zeros held and, if wanted, a teacher."""

from __future__ import annotations

import numpy as np

from tinytorch import nn, optim
from tinytorch.autograd import no_grad
from tinytorch.compression.distillation import distillation_loss
from tinytorch.compression.masks import Pruner
from tinytorch.data import Images, shuffled
from tinytorch.kernels.progress import progress_bar
from tinytorch.nn.functional import cross_entropy
from tinytorch.tensor import Tensor


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
    images, labels = np.asarray(data[0]), np.asarray(data[1])
    if images.dtype != np.float32:
        raise TypeError(f"images have to be float32, not {images.dtype}")
    if not len(images) or len(images) != len(labels):
        raise ValueError(f"training takes images, and a label for each: got {len(images)} and {len(labels)}")
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch_size must be 1 or more, got {epochs} and {batch_size}")
    if pruner is not None and pruner.model is not model:
        raise ValueError("the pruner holds another model than the one to train: prepare(model) has to be of this one")
    optimizer = optim.AdamW(model.parameters(), lr, weight_decay=weight_decay)
    wanted = None if teacher is None else _outputs(teacher, images, batch_size)
    total_steps = epochs * -(-len(images) // batch_size)
    bar = progress_bar(total=total_steps, desc="training", unit="batch", delay=1, disable=not progress)
    losses = []
    model.train()
    try:
        for _ in range(epochs):
            total = 0.0
            for chosen in shuffled(len(images), batch_size, rng):
                outputs = model(Tensor(images[chosen]))
                if wanted is None:
                    loss = cross_entropy(outputs, labels[chosen])
                else:
                    loss = distillation_loss(outputs, wanted[chosen], labels[chosen], temperature, alpha)
                if not np.isfinite(loss.item()):
                    raise FloatingPointError(
                        f"the loss is {loss.item()} at step {optimizer.steps}: begin anew, with a lower lr"
                    )
                optimizer.zero_grad()
                loss.backward()
                optim.clip_grad_norm_(optimizer.params, 1.0)
                optimizer.lr = lr * optim.warmup_cosine(optimizer.steps, total_steps)
                optimizer.step()
                if pruner is not None:
                    pruner.step()
                total += loss.item() * len(chosen)
                bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
                bar.update()
            losses.append(total / len(images))
    finally:
        if pruner is not None:
            pruner.hold()  # Ctrl-C may have come between the optimizer's step and the pruner's
        bar.close()
        model.eval()
    return losses


@no_grad()
def _outputs(model: nn.Module, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return a model's outputs in evaluation mode; afterwards each of its modules has the mode that it had."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        starts = range(0, len(images), batch_size)
        return np.concatenate([model(Tensor(images[start : start + batch_size])).data for start in starts])
    finally:
        for module, training in before:
            module.training = training
