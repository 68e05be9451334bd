"""Small models with random weights, for tests of several chapters, and what they compute and remember."""

from collections.abc import Iterable
from typing import Any

import numpy as np

import tinytorch
from tinytorch import Tensor, nn


def enlarge(module: nn.Module, rng: np.random.Generator, deviation: float = 0.5) -> nn.Module:
    """Random weights of a size at which attention is far from uniform: at the initial ones it hardly matters."""
    for p in module.parameters():
        p.data[...] = rng.normal(0.0, deviation, p.shape)
    return module


def random_gpt(*sizes: int, seed: int = 0, num_kv_heads: int | None = None, deviation: float = 0.5) -> Any:
    """Return a GPT of these sizes, as `nn.GPT` takes them, with enlarged weights."""
    rng = np.random.default_rng(seed)
    return enlarge(nn.GPT(*sizes, rng=rng, num_kv_heads=num_kv_heads), rng, deviation)


def in_evaluation(model: nn.Module, x: np.ndarray) -> np.ndarray:
    """Return the model's output for x as NumPy's kernels compute it, in evaluation mode."""
    with tinytorch.no_grad(), tinytorch.backend("numpy"):
        return model.eval()(Tensor(x)).data


def remembered(caches: Iterable[nn.PastKeyValue]) -> list[tuple[int, bytes, bytes]]:
    """Return what each layer's part of a cache holds, to be compared with what it holds later."""
    return [(layer.length, layer.keys.tobytes(), layer.values.tobytes()) for layer in caches]
