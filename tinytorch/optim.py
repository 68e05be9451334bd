"""Optimizers, learning-rate schedules and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tinytorch.kernels.update import adamw_update, sgd_update, square_sum
from tinytorch.tensor import Tensor


def _not_negative(**arguments: float) -> None:
    for name, value in arguments.items():
        if not value >= 0:
            raise ValueError(f"{name} must not be negative, got {value}")


class Optimizer:
    """Base of the optimizers: holds the parameters, their learning rate `lr`, and arrays of state for each.

    Raises
    ------
    ValueError
        If there is no parameter, or a setting is out of its range, such as a negative `lr`.
    """

    slots: tuple[str, ...] = ()  # names of the arrays kept for each parameter

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        self.params = list(params)
        if not self.params:
            raise ValueError("an optimizer needs at least one parameter")
        _not_negative(lr=lr)
        self.lr, self.steps = lr, 0
        self.state = [{slot: np.zeros_like(p.data) for slot in self.slots} for p in self.params]

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Change every parameter that has a gradient, in place.

        A ValueError if a gradient has another shape than its parameter; nothing is changed then.
        """
        for p in self.params:
            if p.grad is not None and p.grad.shape != p.shape:
                raise ValueError(f"a parameter of shape {p.shape} has a gradient of shape {p.grad.shape}")
        self.steps += 1
        for p, state in zip(self.params, self.state, strict=True):
            if p.grad is not None:
                self._update(p.data, p.grad.data, state)

    def _update(self, p: np.ndarray, grad: np.ndarray, state: dict[str, np.ndarray]) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the state by name: the arrays themselves, and the number of steps taken."""
        arrays = {f"{i}.{slot}": array for i, state in enumerate(self.state) for slot, array in state.items()}
        return {"steps": np.asarray(self.steps), **arrays}

    def load_state_dict(self, saved: dict[str, np.ndarray]) -> None:
        """Copy a saved state back. A KeyError or ValueError names what does not fit; nothing was changed then."""
        own = self.state_dict()
        if own.keys() != saved.keys():
            raise KeyError(f"state of another optimizer: {sorted(own.keys() ^ saved.keys())} only on one side")
        for name, array in own.items():
            if name != "steps" and np.shape(saved[name]) != array.shape:
                raise ValueError(f"{name} has shape {array.shape} here and {np.shape(saved[name])} in the given state")
        self.steps = int(np.asarray(saved["steps"]).item())
        for name, array in own.items():
            if name != "steps":
                array[...] = saved[name]


class SGD(Optimizer):
    """v <- momentum v + (grad + weight_decay p), p <- p - lr v.

    Source: Sutskever et al., "On the importance of initialization and momentum" (2013), section 2, in PyTorch's form.
    Errors are those of `Optimizer`.
    """

    slots = ("velocity",)

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr)
        _not_negative(momentum=momentum, weight_decay=weight_decay)
        self.momentum, self.weight_decay = momentum, weight_decay

    def _update(self, p: np.ndarray, grad: np.ndarray, state: dict[str, np.ndarray]) -> None:
        sgd_update(p, grad, state["velocity"], self.lr, self.momentum, self.weight_decay)


class AdamW(Optimizer):
    """Adam with weight decay decoupled from the gradient, on every parameter that it is given, as in PyTorch.

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization" (2019), algorithm 2; the decay is multiplied by
    lr, as in PyTorch. Errors are those of `Optimizer`.
    """

    slots = ("mean", "square")

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr)
        _not_negative(eps=eps, weight_decay=weight_decay)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"each beta lies in 0 ... 1, 1 excluded, got {betas}")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def _update(self, p: np.ndarray, grad: np.ndarray, state: dict[str, np.ndarray]) -> None:
        hyperparameters = self.lr, self.betas, self.eps, self.weight_decay
        adamw_update(p, grad, state["mean"], state["square"], *hyperparameters, self.steps)


def warmup_cosine(step: int, total_steps: int, warmup_steps: int = 0, final: float = 0.0) -> float:
    """Return the factor on the learning rate before step `step` of 0 ... total_steps - 1.

    It rises linearly to 1 over `warmup_steps`, then falls along a half cosine to `final`.
    Source: Loshchilov & Hutter, "SGDR" (2017), equation 5, without restarts.

    >>> [round(warmup_cosine(s, total_steps=5, warmup_steps=2), 2) for s in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def clip_grad_norm_(params: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients in place, whatever their shape, to a joint 2-norm of at most `max_norm`; return that before.

    Source: Pascanu et al., "On the difficulty of training recurrent neural networks" (2013), section 3.2.

    A ValueError if `max_norm` is negative.
    """
    _not_negative(max_norm=max_norm)
    grads = [p.grad.data for p in params if p.grad is not None]
    norm = math.sqrt(sum(square_sum(g) for g in grads))
    if norm > max_norm:
        for g in grads:
            g *= max_norm / norm
    return norm
