"""Training a model of the zoo: with a progress bar, and a checkpoint from which it goes on after Ctrl-C."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch import data, optim
from tinytorch.data import DataError
from tinytorch.kernels.progress import progress_bar
from tinytorch.zoo import files
from tinytorch.zoo.fitting import take_step
from tinytorch.zoo.recipes import Recipe, recipe

_SAVE_SECONDS = 30.0


class Interrupted(RuntimeError):
    """Training was stopped; the message says how to go on from what was kept."""


def train(
    name: str, checkpoint: Path, resume: bool = False, seed: int = 0, steps: int | None = None
) -> tuple[Any, dict[str, Any]]:
    """Train a model of the zoo and return it, in evaluation mode, with its card.

    Parameters
    ----------
    name
        A key of `RECIPES`.
    checkpoint
        File that keeps model, optimizer and step, written at the start, every half minute and at the end. Ctrl-C leaves
        the last one: it may come in the middle of a step, and half a step is no checkpoint.
    resume
        Go on from the checkpoint. The batches are those that an uninterrupted run would have drawn.
    seed
        Of the initial weights and of the order of the data.
    steps
        Fewer or more steps than the recipe's, for a trial.

    Raises
    ------
    KeyError
        If there is no such model.
    DataError
        If the data or the checkpoint cannot be read.
    FileExistsError
        If a checkpoint exists and `resume` is false: it might be somebody's work.
    FloatingPointError
        If the loss is not finite.
    Interrupted
        After Ctrl-C.
    """
    r = recipe(name)
    total = r.steps if steps is None else steps
    model = r.build(np.random.default_rng(seed))
    optimizer = optim.AdamW(model.parameters(), r.lr, r.betas, weight_decay=r.weight_decay)
    if resume:
        _restore(checkpoint, model, optimizer)
    elif checkpoint.exists():
        raise FileExistsError(f"{checkpoint} exists: go on from it with --resume, or remove it to begin anew")
    else:
        _save(checkpoint, model, optimizer)
    try:
        _loop(r, model, optimizer, r.batches(seed), total, checkpoint, name)
        model.eval()
        return model, _card(name, r, model, seed, total)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped after {optimizer.steps} of {total} steps; the checkpoint may be {_SAVE_SECONDS:.0f} s older. "
            f"Go on with: {_command(name, r, seed, total)} --resume --checkpoint {checkpoint}"
        ) from None


def _loop(
    r: Recipe, model: Any, optimizer: optim.Optimizer, batch: Any, total: int, checkpoint: Path, name: str
) -> None:
    smoothed, saved = None, time.monotonic()
    entries = batch(0)[1].size
    done = optimizer.steps * entries
    bar = progress_bar(total=total * entries, initial=done, unit=f" {r.unit}", unit_scale=True, desc=name)
    try:
        while optimizer.steps < total:
            step = optimizer.steps
            loss = take_step(
                optimizer, r.loss(model, batch(step)), total,
                lr=r.lr, warmup_steps=r.warmup_steps, max_grad_norm=r.max_grad_norm,
            )  # fmt: skip
            smoothed = loss if smoothed is None else 0.98 * smoothed + 0.02 * loss
            bar.set_postfix(loss=f"{smoothed:.4f}", step=f"{step + 1}/{total}", refresh=False)
            bar.update(entries)
            if time.monotonic() - saved > _SAVE_SECONDS:
                _save(checkpoint, model, optimizer)
                saved = time.monotonic()
    finally:
        bar.close()
    _save(checkpoint, model, optimizer)


def _save(checkpoint: Path, model: Any, optimizer: optim.Optimizer) -> None:
    arrays = {f"model.{k}": v for k, v in model.state_dict().items()}
    files.save_arrays(checkpoint, arrays | {f"optimizer.{k}": v for k, v in optimizer.state_dict().items()})


def _restore(checkpoint: Path, model: Any, optimizer: optim.Optimizer) -> None:
    arrays = files.read_arrays(checkpoint)
    parts: dict[str, dict[str, np.ndarray]] = {"model": {}, "optimizer": {}}
    try:
        for path, array in arrays.items():
            part, _, key = path.partition(".")
            parts[part][key] = array
        model.load_state_dict(parts["model"])
        optimizer.load_state_dict(parts["optimizer"])
    except (KeyError, ValueError) as error:
        raise DataError(f"{checkpoint} is no checkpoint of this model: {error}") from None


def _command(name: str, r: Recipe, seed: int, total: int) -> str:
    options = (f" --seed {seed}" if seed else "") + ("" if total == r.steps else f" --steps {total}")
    return f"python -m tinytorch.zoo train {name}{options}"


def _card(name: str, r: Recipe, model: Any, seed: int, total: int) -> dict[str, Any]:
    return {
        "name": name,
        "parameters": model.num_parameters(),
        "command": _command(name, r, seed, total),
        "seed": seed,
        "recipe": {
            "optimizer": "AdamW", "steps": total, "warmup_steps": r.warmup_steps, "lr": r.lr, "betas": list(r.betas),
            "weight_decay": r.weight_decay, "max_grad_norm": r.max_grad_norm,
        },
        "data": data.files.source_of(r.dataset),
        "rows": {r.metric["name"]: {"value": r.evaluate(model), "unit": r.metric["unit"], "what": r.metric["what"]}},
    }  # fmt: skip
