"""`take_step`: what every training does once for each batch. `fit`: the loop by which a trained model trains on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinytorch import nn, optim
from tinytorch.autograd import no_grad
from tinytorch.data import Images, shuffled
from tinytorch.kernels.progress import progress_bar
from tinytorch.nn.module import evaluation
from tinytorch.tensor import Tensor

Loss = Callable[[Tensor, np.ndarray, np.ndarray | None], Tensor]  # of outputs, labels, and the teacher's outputs


def take_step(
    optimizer: optim.Optimizer,
    loss: Tensor,
    total_steps: int,
    *,
    lr: float,
    warmup_steps: int = 0,
    max_grad_norm: float = 1.0,
) -> float:
    """Take an optimizer's next step down a loss, and return the loss, a number.

    The learning rate is what `warmup_cosine` makes of `lr` at this step of so many; gradients are clipped.

    Raises
    ------
    FloatingPointError
        If the loss is not finite; no weight is changed then.
    """
    value = float(loss.item())
    if not np.isfinite(value):
        raise FloatingPointError(f"the loss is {value} at step {optimizer.steps}: begin anew, with a lower lr")
    optimizer.zero_grad()
    loss.backward()
    optim.clip_grad_norm_(optimizer.params, max_grad_norm)
    optimizer.lr = lr * optim.warmup_cosine(optimizer.steps, total_steps, warmup_steps)
    optimizer.step()
    return value


def fit(
    model: nn.Module,
    data: Images | tuple[np.ndarray, np.ndarray],
    loss_of: Loss,
    *,
    teacher: nn.Module | None,
    after_step: Callable[[], None] = lambda: None,
    epochs: int,
    lr: float,
    batch_size: int,
    weight_decay: float = 0.0,
    rng: np.random.Generator,
    progress: bool,
) -> list[float]:
    """Train a model in place: AdamW, the learning rate falling along a half cosine, gradients clipped to norm 1.

    Afterwards, also after Ctrl-C, it is in evaluation mode.

    Parameters
    ----------
    data
        Images, float32 (N, ...), and labels, class numbers (N,).
    loss_of
        The mean loss of a batch, from its outputs, labels and what the teacher says (None without one).
    teacher
        Its outputs are computed once, in evaluation mode, before the training: it may be the model itself.
    after_step
        What follows each step of the optimizer.
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
        If there are none, or not as many labels, or a number is out of range.
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
    optimizer = optim.AdamW(model.parameters(), lr, weight_decay=weight_decay)
    wanted = None if teacher is None else _outputs(teacher, images, batch_size)
    steps = epochs * -(-len(images) // batch_size)
    bar = progress_bar(total=steps, desc="training", unit="batch", delay=1, disable=not progress)
    losses = []
    model.train()
    try:
        for _ in range(epochs):
            total = 0.0
            for chosen in shuffled(len(images), batch_size, rng):
                outputs = model(Tensor(images[chosen]))
                loss = loss_of(outputs, labels[chosen], None if wanted is None else wanted[chosen])
                value = take_step(optimizer, loss, steps, lr=lr)
                after_step()
                total += value * len(chosen)
                bar.set_postfix(loss=f"{value:.4f}", refresh=False)
                bar.update()
            losses.append(total / len(images))
    finally:
        bar.close()
        model.eval()
    return losses


@no_grad()
def _outputs(model: nn.Module, images: np.ndarray, batch_size: int) -> np.ndarray:
    with evaluation(model):
        starts = range(0, len(images), batch_size)
        return np.concatenate([model(Tensor(images[start : start + batch_size])).data for start in starts])
