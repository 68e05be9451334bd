"""Every formula, against the operation's definition worked out in numbers that count what is done with them."""

import copy
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.functions import all_functions, has_derivative
from tinytorch import Function, Tensor, backend, optim
from tinytorch.nn.functional import scaled_dot_product_attention
from tinytorch.ops import attention, image, shape
from tinytorch.profiling.dispatch import Observer
from tinytorch.profiling.flops.count import Count, count, counted, counts
from tinytorch.profiling.operation import Operation

n = importlib.import_module("tests.19_profiling.counting_numbers")
drawn = importlib.import_module("tests.19_profiling.formula_arguments")
DEFINITIONS = importlib.import_module("tests.19_profiling.definitions_of_networks").DEFINITIONS


KINDS = ("forward", "backward")


@pytest.fixture(autouse=True, scope="module")
def _numpy():
    with backend("numpy"):
        yield


# What is run


class Seen(Observer):
    """Keeps operations, what was saved for derivatives, and results."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: dict[str, Operation] = {}
        self.results: dict[str, tuple[np.ndarray | None, ...]] = {}
        self.saved: tuple[Any, ...] = ()

    def enter(self, call):
        if call.kind == "backward":
            self.saved = call.node.ctx.saved_tensors

    def exit(self, call):
        operation = Operation.of(call)
        if operation is not None:
            self.operations[call.kind] = operation
            self.results[call.kind] = (call.result.data,) if call.kind == "forward" else call.result


def written(results: tuple[np.ndarray | None, ...], given: Any) -> int:
    """Bytes of the memory that results lie in, without what they share with what was given or with one another."""
    old = [owner(array) for _, array in n.arrays(given, "")]
    new = [owner(np.asarray(result)) for result in results if result is not None]
    return sum({id(array): array.nbytes for array in new if not any(array is x for x in old)}.values())


def owner(array: np.ndarray) -> np.ndarray:
    """The array whose memory a view looks at."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def read(ledger: Any, given: Any, by_elements: bool) -> int:
    """Bytes of the arrays of which something was read; by elements, of those alone."""
    arrays = dict(n.arrays(given, "given"))
    return sum(
        len(elements) * arrays[name].itemsize if by_elements and arrays[name].dtype.kind == "f" else arrays[name].nbytes
        for name, elements in ledger.read.items()
    )


def check(operation: Operation, results: tuple, memory: tuple, define: Callable, given: tuple, definition: Any) -> None:
    """Work it out by its definition: the same numbers, and as many operations and bytes as the formula says.

    `given` are the arguments as they were, `memory` the very arrays, of which results may be views.
    """
    wrapped = n.numbers(given, "given")
    with n.ledger() as ledger:
        found = define(*wrapped)
    found = found if isinstance(found, tuple) else (found,)
    for ours, real in zip(found, results, strict=True):
        assert (ours is None) == (real is None)
        if real is not None:
            np.testing.assert_allclose(n.plain(ours), real, rtol=1e-4, atol=1e-5)
    for (_, ours), (_, real) in zip(n.arrays(wrapped, ""), n.arrays(memory, ""), strict=True):
        np.testing.assert_allclose(n.plain(ours), real, rtol=1e-4, atol=1e-5)  # changed alike, if it was changed
    visible = ledger
    if definition.hides:
        with n.ledger() as visible:
            define(*wrapped, skip=True)
    moved = read(ledger, given, definition.gathers) + written(results, memory)
    assert count(operation) == Count(ledger.macs, ledger.flops, moved, ledger.flops - visible.flops)


@pytest.mark.parametrize("function", all_functions(), ids=lambda f: f.__name__)
@settings(max_examples=40)
@given(data=st.data())
def test_a_formula_counts_what_the_definition_does(function, data):
    args = drawn.ARGUMENTS[function](data.draw)
    options = {"axis": data.draw(st.sampled_from([0, 0, -2]))} if function is shape.Concatenate else {}
    definition, before = DEFINITIONS[function], copy.deepcopy(args)
    given = [isinstance(x, np.ndarray) and x.dtype.kind == "f" for x in args]
    asked = has_derivative(function)
    tensors = [Tensor(x, asked and data.draw(st.booleans())) if g else x for x, g in zip(args, given, strict=True)]
    with Seen() as seen:
        y = function.apply(*tensors, **options)
        gradient = drawn.values(data.draw, y.shape, y.dtype)
        if y.requires_grad:
            y.backward(gradient)
    check(
        seen.operations["forward"],
        seen.results["forward"],
        tuple(args),
        lambda *xs, **skip: definition.forward(*xs, **options, **skip),
        tuple(before),
        definition,
    )
    if "backward" in seen.operations:
        needs = seen.operations["backward"].needs_input_grad
        check(
            seen.operations["backward"],
            seen.results["backward"],
            (gradient, seen.saved),
            lambda g, saved, **skip: definition.backward(g, saved, needs, **skip),
            (gradient, seen.saved),
            definition,
        )


# Steps of optimizers, defined once more


def sgd_step(p, g, state, lr, momentum, decay):
    v = state["velocity"]
    v[...] = momentum * v + (g + decay * p)
    p[...] = p - lr * v


def adamw_step(p, g, state, lr, beta1, beta2, eps, decay, step):
    m, s = state["mean"], state["square"]
    m[...] = m + (1 - beta1) * (g - m)
    s[...] = s + (1 - beta2) * (g * g - s)
    unbiased_m, unbiased_s = m / (1 - beta1**step), s / (1 - beta2**step)
    p[...] = p * (1 - lr * decay) - lr * unbiased_m / (n.sqrt(unbiased_s) + eps)


STEPS = {
    optim.SGD: (
        lambda params: optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda *arrays: sgd_step(*arrays, 0.1, 0.9, 0.01),
    ),
    optim.AdamW: (
        lambda params: optim.AdamW(params, lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1),
        lambda *arrays: adamw_step(*arrays, 0.1, 0.8, 0.9, 1e-3, 0.1, 1),
    ),
}


@pytest.mark.parametrize("kind", STEPS, ids=lambda kind: kind.__name__)
@settings(max_examples=20)
@given(data=st.data())
def test_a_step_counts_what_its_rule_does(kind, data):
    make, rule = STEPS[kind]
    params = [
        Tensor(drawn.values(data.draw, s, data.draw(drawn.DTYPES)), True)
        for s in data.draw(st.lists(drawn.SHAPES, min_size=1))
    ]
    optimizer = make(params)
    for p in params:
        if data.draw(st.booleans()):  # the others stay as they are
            p.grad = Tensor(drawn.values(data.draw, p.shape, p.dtype))
    given = {
        i: (p.data, p.grad.data, s)
        for i, (p, s) in enumerate(zip(params, optimizer.state, strict=True))
        if p.grad is not None
    }
    wrapped = {
        i: (n.numbers(p, f"p{i}"), n.numbers(g, f"g{i}"), {k: n.numbers(a, f"{k}{i}") for k, a in s.items()})
        for i, (p, g, s) in given.items()
    }
    with Seen() as seen:
        optimizer.step()
    with n.ledger() as ledger:
        for arrays in wrapped.values():
            rule(*arrays)
    for i, (p, _, state) in wrapped.items():
        np.testing.assert_allclose(n.plain(p), params[i].data, rtol=1e-4, atol=1e-5)
        for slot, array in state.items():
            np.testing.assert_allclose(n.plain(array), optimizer.state[i][slot], rtol=1e-4, atol=1e-5)
    moved = sum(p.nbytes + g.nbytes + sum(a.nbytes for a in s.values()) for p, g, s in given.values())
    assert count(seen.operations["optimizer"]) == Count(0, ledger.flops, moved)


# All of them, and the edges


def test_every_operation_its_derivative_and_every_optimizer_has_a_formula_and_a_definition():
    functions = all_functions()
    optimizers = [o for o in vars(optim).values() if isinstance(o, type) and issubclass(o, optim.Optimizer)]
    optimizers.remove(optim.Optimizer)
    assert set(functions) == DEFINITIONS.keys() == drawn.ARGUMENTS.keys()
    assert set(optimizers) == STEPS.keys()
    without = [f.__name__ for f in functions for kind in KINDS[: 1 + has_derivative(f)] if not counted(kind, f)]
    without += [o.__name__ for o in optimizers if not counted("optimizer", o)]
    assert without == []


def seen_of(run: Callable[[], Any]) -> dict[str, Operation]:
    with Seen() as seen:
        run()
    return seen.operations


@pytest.mark.parametrize(
    ("index", "chosen", "index_bytes"),
    [
        (np.array([True, False, True]), 4, 3),
        ([True, False, True], 4, 0),
        (np.array([1, 1, 1]), 6, 24),
    ],
)
def test_masks_and_repeated_rows_are_copied_and_their_gradients_added(index, chosen, index_bytes):
    x = Tensor(np.ones((3, 2), np.float32), requires_grad=True)
    y = x[index]
    operations = seen_of(lambda: x[index].backward(np.ones(y.shape)))
    assert y.numel() == chosen
    assert count(operations["forward"]) == Count(bytes=2 * y.nbytes + index_bytes)
    assert count(operations["backward"]) == Count(flops=chosen, bytes=y.nbytes + x.nbytes + index_bytes)


def test_arguments_may_be_given_by_name_or_left_out():
    x, weight = Tensor(np.ones((1, 2, 4, 4), np.float32)), Tensor(np.ones((3, 2, 2, 2), np.float32))
    bias = Tensor(np.ones(3, np.float32))
    for by_name, by_position in (
        (lambda: image.MaxPool2d.apply(x, stride=2, kernel_size=3), lambda: image.MaxPool2d.apply(x, 3, 2)),
        (lambda: image.Conv2d.apply(x, weight, bias, padding=1), lambda: image.Conv2d.apply(x, weight, bias, 1, 1)),
        (
            lambda: attention.ScaledDotProductAttention.apply(x, x, x),
            lambda: scaled_dot_product_attention(x, x, x, True),
        ),
    ):
        found = [count(seen_of(run)["forward"]) for run in (by_name, by_position)]
        assert found[0] == found[1]


def test_a_numpy_number_as_an_index_is_a_slice():
    x = Tensor(np.ones((3, 2), np.float32), requires_grad=True)
    assert count(seen_of(lambda: x[np.int64(1)])["forward"]) == Count()


def test_a_formula_is_registered_once_for_one_class_and_used_from_then_on():
    class Twice(Function):
        @staticmethod
        def forward(ctx, x):
            return x + x

    class Subclass(Twice):
        pass

    operation = seen_of(lambda: Twice.apply(Tensor([1.0, 2.0])))["forward"]
    assert count(operation) is None
    counts(Twice, "forward")(lambda operation: Count(flops=operation.output.size))
    assert count(operation) == Count(flops=2)
    assert not counted("forward", Subclass)
    with pytest.raises(TypeError, match="Twice has formulas for forward and backward, not for 'optimizer'"):
        counts(Twice, "optimizer")
    with pytest.raises(TypeError, match="SGD has formulas for optimizer, not for 'forward'"):
        counts(optim.SGD, "forward")


def test_a_formula_is_asked_once_for_equal_work():
    class Thrice(Function):
        @staticmethod
        def forward(ctx, x):
            return 3 * x

    asked = []
    counts(Thrice, "forward")(lambda operation: asked.append(operation) or Count())
    for size in (2, 2, 3):
        count(seen_of(lambda size=size: Thrice.apply(Tensor([1.0] * size)))["forward"])
    assert [operation.output.shape for operation in asked] == [(2,), (3,)]


def test_counts_add_up_and_multiply():
    assert Count(1, 2, 3, 4) + Count(10, 20, 30, 40) == Count(11, 22, 33, 44)
    assert Count(1, 2, 3, 4) * 3 == Count(3, 6, 9, 12)
