"""What a call costs before it computes anything: finding the function, checking shapes, making the result's tensor.

It is the time of the same operation on arrays of one element. Each operation has a price of its own, for one is a
single call of NumPy and another a dozen of them, and so has each backend.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tinytorch import optim
from tinytorch.autograd import Function
from tinytorch.kernels import int8, sparse
from tinytorch.kernels.backend import current_backend
from tinytorch.kernels.decoding import BlockWeights, DecoderWeights
from tinytorch.kernels.dynamic import Product
from tinytorch.ops import (
    activation,
    attention,
    elementwise,
    embedding,
    image,
    linear,
    loss,
    normalization,
    reduction,
    shape,
)
from tinytorch.ops.decoding import DecoderStep
from tinytorch.ops.dynamic import DynamicLinear
from tinytorch.ops.integers import IntegerNetwork
from tinytorch.ops.sparse import SparseLayer, SparseNetwork
from tinytorch.profiling.dispatch import Kind
from tinytorch.profiling.operation import Operation
from tinytorch.tensor import Tensor

_REPETITIONS = 30


class Prices:
    """Seconds of calls that compute nothing, under the backend in use.

    Parameters
    ----------
    each
        The price of every call; None measures that of each operation, derivative or optimizer when it is asked for
        the first time. Those of others are taken to cost as much as an addition.
    """

    def __init__(self, each: float | None = None) -> None:
        self.each = each

    @property
    def least(self) -> float:
        """The price of an addition."""
        return _measured(current_backend(), elementwise.Add)["forward"] if self.each is None else self.each

    def of(self, operation: Operation) -> float:
        """Return the price of a call. An optimizer's step is a call for each parameter."""
        price = self.least
        if self.each is None:
            price = _measured(current_backend(), operation.function).get(operation.kind, price)
        return price * (len(operation.inputs) if operation.kind == "optimizer" else 1)


@functools.cache
def _measured(backend: str, function: type) -> dict[Kind, float]:
    with ThreadPoolExecutor(1) as fresh:  # in which nobody watches, and gradients are recorded
        return fresh.submit(_measure, function).result()


def _measure(function: Any) -> dict[Kind, float]:
    """Return the least times of a function and its derivative, or of an optimizer; nothing for one of your own."""
    if function in (optim.SGD, optim.AdamW):
        parameter = _one(1)
        parameter.grad = Tensor(np.ones(1, np.float32))
        step = function([parameter], lr=0.1).step
        return {"optimizer": min(_timed(step)[0] for _ in range(_REPETITIONS))}
    inputs = dict(small_calls()).get(function)
    if inputs is None:
        return {}
    forward, backward = list[float](), list[float]()
    for _ in range(_REPETITIONS):
        seconds, result = _timed(function.apply, *inputs)
        forward.append(seconds)
        if function.backward is not Function.backward:  # it has a derivative
            backward.append(_timed(result.grad_fn.backward, np.ones_like(result.data))[0])
    found: dict[Kind, float] = {"forward": min(forward)}
    return found | {"backward": min(backward)} if backward else found


def small_calls() -> Iterator[tuple[type[Function], tuple[Any, ...]]]:
    """Yield every operation with inputs of one element, or of one window: 3 x 3 for convolution, 2 x 2 for pooling."""
    one, index, numbers = _one(1), np.zeros(1, np.int64), np.ones(1, np.float32)
    for name in ("Add", "Sub", "Mul", "Div", "Maximum"):
        yield getattr(elementwise, name), (one, one)
    for function in (elementwise.Neg, elementwise.Exp, elementwise.Log, elementwise.Tanh):
        yield function, (one,)
    yield elementwise.Pow, (one, 2.0)
    yield activation.ReLU, (one,)
    yield activation.GELU, (one,)
    yield activation.Softmax, (_one(1, 1),)
    yield activation.Dropout, (one, 0.5, np.random.default_rng(0))
    yield linear.MatMul, (_one(1, 1), _one(1, 1))
    yield linear.Linear, (_one(1, 1), _one(1, 1), one)
    code = np.ones((1, 1), np.int8)
    yield DynamicLinear, (_one(1, 1), code, numbers, numbers, Product(code, numbers))
    integers = int8.Network([int8.Linear(code, np.ones(1, np.int32), numbers)], (1,))
    yield IntegerNetwork, (_one(1, 1), integers.described, integers)
    stored = sparse.Network([sparse.Linear(sparse.Rows.from_dense(np.ones((1, 1))))], (1,))
    for each in (SparseLayer, SparseNetwork):
        yield each, (_one(1, 1), stored.described, stored)
    yield image.Conv2d, (_one(1, 1, 3, 3), _one(1, 1, 3, 3), one, 1, 0)
    yield image.MaxPool2d, (_one(1, 1, 2, 2), 2, 2)
    yield image.AvgPool2d, (_one(1, 1, 2, 2), 2, 2)
    yield normalization.LayerNorm, (_one(1, 1), one, one, 1e-5)
    yield normalization.BatchNorm2d, (_one(1, 1, 1, 1), one, one, 1e-5, (numbers.copy(), numbers.copy(), 0.1))
    yield normalization.FrozenBatchNorm2d, (_one(1, 1, 1, 1), one, one, 1e-5, (numbers, numbers))
    yield attention.SelfAttention, (_one(1, 1, 3), 1)
    yield attention.ScaledDotProductAttention, (_one(1, 1, 1, 1),) * 3
    block = BlockWeights(*[numbers, numbers, np.ones((3, 1), np.float32), np.ones(3, np.float32)], *[numbers] * 8)
    block = block._replace(**{name: np.ones((1, 1), np.float32) for name in ("out", "up", "down")})
    weights = DecoderWeights((block,), np.ones((1, 1), np.float32), numbers, numbers, np.ones((1, 1), np.float32))
    cache = np.ones((2, 1, 1, 1, 1, 1), np.float32)
    yield DecoderStep, (_one(1, 1), index[:, None], weights, *cache, 1, 0, index, 1e-5)
    yield embedding.Embedding, (_one(1, 1), index)
    yield loss.CrossEntropy, (_one(1, 1), index)
    for name in ("Sum", "Mean", "Max"):
        yield getattr(reduction, name), (one,)
    yield shape.Reshape, (one, (1,))
    yield shape.Permute, (_one(1, 1), (1, 0))
    yield shape.GetItem, (one, 0)
    yield shape.Concatenate, (one, one)


def _one(*sizes: int) -> Tensor:
    return Tensor(np.ones(sizes, np.float32), requires_grad=True)


def _timed(function: Callable[..., Any], *inputs: Any) -> tuple[float, Any]:
    begin = time.perf_counter_ns()
    result = function(*inputs)
    return (time.perf_counter_ns() - begin) / 1e9, result
