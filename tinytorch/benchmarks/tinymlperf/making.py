"""Smaller models for submissions: what chapters 16 and 17 do, one after the other, from the command line."""

from __future__ import annotations

import importlib
from typing import Any

from tinytorch import nn, zoo
from tinytorch.benchmarks.tinymlperf.execution import SPARSE_FROM
from tinytorch.benchmarks.tinymlperf.tasks import TASKS, load_task
from tinytorch.compression.low_rank import factorize
from tinytorch.compression.pruner import MagnitudePruner
from tinytorch.compression.sparse_linears import sparse_linears
from tinytorch.compression.sparse_model import to_sparse
from tinytorch.compression.structured import prune_filters
from tinytorch.quantization.dynamic import quantize_dynamic
from tinytorch.quantization.quantizer import INT8Quantizer

_OF_TASK = {task.model: task.name for task in TASKS.values()}
_CALIBRATION = 256  # images


def made(
    model: str,
    task: str | None = None,
    filters: float | None = None,
    sparsity: float | None = None,
    energy: float | None = None,
    bits: int | None = None,
) -> tuple[nn.Module, str]:
    """Return a model, made smaller, and its task: filters first, then thin layers, zeros, and whole numbers.

    Parameters
    ----------
    model
        A name of the zoo, or MODULE:FACTORY.
    task
        Needed for a factory's model.
    filters, sparsity, energy, bits
        See `prune_filters`, `MagnitudePruner`, `factorize`, `INT8Quantizer`. Nothing is trained on. Of a GPT `bits` are
        those of `quantize_dynamic`, zeros are left out as by `sparse_linears`, and there is nothing else.

    Raises
    ------
    KeyError
        If there is no such model or task.
    ValueError
        If a model that is neither `nn.Sequential` nor `nn.GPT` shall be made smaller, or a GPT in another way.
    """
    whole: Any
    if ":" in model:
        path, _, name = model.partition(":")
        whole = getattr(importlib.import_module(path), name)()
    else:
        whole, task = zoo.load(model), task or _OF_TASK[model]
    if task is None:
        raise KeyError(f"say for which task, with --task: {', '.join(TASKS)}")
    changes = [change for change in (filters, sparsity, energy, bits) if change is not None]
    if isinstance(whole, nn.GPT):
        return _smaller_gpt(whole, filters, sparsity, energy, bits), task
    if changes and not isinstance(whole, nn.Sequential):
        raise ValueError(f"a {type(whole).__name__} is not made smaller here: do it with a factory, MODULE:FACTORY")
    if filters is not None:
        whole = prune_filters(whole, filters)
    if energy is not None:
        whole = factorize(whole, energy)
    if sparsity is not None:
        whole = MagnitudePruner(sparsity).prepare(whole).finalize()
        if bits is None:
            return to_sparse(whole.eval(), SPARSE_FROM), task
    if bits is not None:
        samples = load_task(task).public().inputs[:_CALIBRATION]
        return INT8Quantizer(weight_bits=bits).calibrate(whole.eval(), samples, progress=False).convert(whole), task
    return whole.eval(), task


def _smaller_gpt(
    model: nn.GPT, filters: float | None, sparsity: float | None, energy: float | None, bits: int | None
) -> nn.Module:
    if filters is not None or energy is not None:
        raise ValueError("a GPT has no filters, and its layers are not made thin here: use sparsity or bits")
    if sparsity is not None:
        pruned = MagnitudePruner(sparsity).prepare(model).finalize()
        if bits is None:
            return sparse_linears(pruned, SPARSE_FROM)
    return model.eval() if bits is None else quantize_dynamic(model, bits)
