"""What the command profiles: a model of the zoo or of your own, its input, and one step of inference or of training."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch import nn, optim
from tinytorch.autograd import no_grad
from tinytorch.nn.functional import cross_entropy
from tinytorch.tensor import Tensor
from tinytorch.zoo import RECIPES

BATCH = 8
_SHAPES = {"reference_cnn": (1, 28, 28)}
_HOW = "MODULE:FACTORY is a function without arguments that returns a Module, or (Module, inputs)"


class WorkloadError(Exception):
    """The model cannot be profiled; the message says why. `usage`: another command line would do."""

    def __init__(self, message: str, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


@dataclass(frozen=True)
class Workload:
    """A model with something to do: `step()` is one pass, forward or a whole step of training."""

    name: str
    model: nn.Module
    inputs: tuple[Any, ...]
    step: Callable[[], None]
    optimizer: optim.Optimizer | None = None

    def __str__(self) -> str:
        shapes = ", ".join(str(np.shape(x.data if isinstance(x, Tensor) else x)) for x in self.inputs)
        what = "inference" if self.optimizer is None else "training"
        return f"{self.name}: {self.model.num_parameters():,} parameters, {what} on {shapes}"


def workload(
    name: str,
    batch: int | None = None,
    length: int | None = None,
    shape: tuple[int, ...] | None = None,
    train: bool = False,
) -> Workload:
    """Build a model and its input: random numbers, always the same.

    Parameters
    ----------
    name
        A model of the zoo, or "module:factory".
    batch, length, shape
        Of the input, where the factory gives none: entries, positions of a GPT, the shape of one entry.
    train
        A step is forward, cross-entropy with random targets (of an output (..., C)), backward and AdamW.

    Raises
    ------
    WorkloadError
        If there is no such model, it cannot be made, or its input cannot be found: says what is missing.
    """
    for option, value in (("--batch", batch), ("--length", length), *(("--shape", size) for size in shape or ())):
        if value is not None and value < 1:
            raise WorkloadError(f"{option} must be at least 1, got {value}", usage=True)
    rng = np.random.default_rng(0)
    model, inputs = (RECIPES[name].build(rng), None) if name in RECIPES else _made(name)
    if inputs is None:
        inputs = _inputs(model, batch, length, shape or _SHAPES.get(name), rng)
    elif (batch, length, shape) != (None, None, None):
        raise WorkloadError(f"{name} gives its own inputs: --batch, --length and --shape change nothing", usage=True)
    if not train:
        model.eval()
        return Workload(name, model, inputs, _inference(model, inputs))
    if not model.num_parameters():
        raise WorkloadError(f"{name} has no parameters to train", usage=True)
    optimizer = optim.AdamW(model.train().parameters())
    return Workload(name, model, inputs, _training(model, inputs, optimizer, rng), optimizer)


def _made(name: str) -> tuple[nn.Module, tuple[Any, ...] | None]:
    """Import and call a factory."""
    path, colon, attribute = name.partition(":")
    if not (path and colon and attribute):
        known = ", ".join(RECIPES)
        raise WorkloadError(f"there is no model {name!r}: the zoo has {known}, and {_HOW}", usage=True)
    try:
        factory = getattr(importlib.import_module(path), attribute)
    except Exception as error:
        raise WorkloadError(f"{name} cannot be imported: {_said(error)}") from error
    try:
        made = factory()
    except Exception as error:
        raise WorkloadError(f"{name} failed: {_said(error)}") from error
    model, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise WorkloadError(f"{name} returned {type(made).__name__}: {_HOW}")
    return model, inputs if inputs is None or isinstance(inputs, tuple) else (inputs,)


def _inputs(
    model: nn.Module, batch: int | None, length: int | None, shape: tuple[int, ...] | None, rng: np.random.Generator
) -> tuple[Any, ...]:
    """Find out what a model takes: token numbers of a GPT, else what its first layer takes."""
    batch = BATCH if batch is None else batch
    if isinstance(model, nn.GPT):
        length = model.max_seq_len if length is None else length
        if shape is not None or length > model.max_seq_len:
            raise WorkloadError(f"a GPT takes --batch and --length, at most {model.max_seq_len} here", usage=True)
        return (rng.integers(model.vocab_size, size=(batch, length)),)
    if length is not None:
        raise WorkloadError(f"--length is for a GPT, this is a {type(model).__name__}: use --shape", usage=True)
    if shape is None:
        first = next((m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Embedding)), None)
        if not isinstance(first, nn.Linear):
            layer = f"{first.in_channels},H,W" if isinstance(first, nn.Conv2d) else "..."
            begins = "" if first is None else f", which begins with {first!r}"
            raise WorkloadError(
                f"{type(model).__name__}{begins}: say what it takes with --shape {layer} (without the batch), "
                "or let the factory return (model, inputs)",
                usage=True,
            )
        shape = (first.in_features,)
    return (Tensor(rng.random((batch, *shape), dtype=np.float32)),)


def _inference(model: nn.Module, inputs: tuple[Any, ...]) -> Callable[[], None]:
    def step() -> None:
        with no_grad():
            model(*inputs)

    return step


def _training(
    model: nn.Module, inputs: tuple[Any, ...], optimizer: optim.Optimizer, rng: np.random.Generator
) -> Callable[[], None]:
    targets: list[np.ndarray] = []

    def step() -> None:
        optimizer.zero_grad()
        output = model(*inputs)
        if not targets:
            targets.append(rng.integers(output.shape[-1], size=output.shape[:-1]))
        cross_entropy(output, targets[0]).backward()
        optimizer.step()

    return step


def _said(error: BaseException) -> str:
    """Write an exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
