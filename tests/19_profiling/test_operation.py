"""What is kept of a call."""

import weakref

import numpy as np

from tinytorch import Tensor, nn, optim
from tinytorch.nn.functional import cross_entropy
from tinytorch.profiling.dispatch import Observer
from tinytorch.profiling.operation import Array, Operation

FLOAT, INT = np.dtype(np.float32), np.dtype(np.int64)


class Kept(Observer):
    def __init__(self):
        super().__init__()
        self.operations = []

    def exit(self, call):
        self.operations.append(Operation.of(call))


def test_shapes_of_a_layer_its_derivative_and_the_optimizers_step_are_kept():
    layer = nn.Linear(3, 2, rng=np.random.default_rng(0))
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    with Kept() as kept:
        layer(Tensor(np.ones((5, 3), np.float32))).sum(axis=1).sum().backward()
        optimizer.step()
    x, weight, bias, y = (Array(shape, FLOAT) for shape in ((5, 3), (2, 3), (2,), (5, 2)))
    linear, total, backward, step = kept.operations[0], kept.operations[2], kept.operations[-3], kept.operations[-1]
    assert linear[2:5] == ((x, weight, bias), (), y)
    assert total.inputs[1:] == (1, False)
    assert backward.inputs == (x, weight, bias)
    assert (backward.output, backward.needs_input_grad) == (y, (False, True, True))
    assert (step.kind, step.function, step.inputs) == ("optimizer", optim.SGD, (weight, bias))
    assert kept.operations[-2] is None  # the pass as a whole


def test_what_an_operation_had_kept_is_known_when_its_derivative_has_freed_it():
    with Kept() as kept:
        nn.MaxPool2d(2)(Tensor(np.ones((1, 1, 4, 6), np.float32), requires_grad=True)).backward(np.ones((1, 1, 2, 3)))
        Tensor(np.float32(2.0), requires_grad=True).exp().backward()
    pool, exp = (o for o in kept.operations if o is not None and o.kind == "backward")
    assert pool.saved == (Array((1, 1, 4, 6), FLOAT), Array((1, 1, 2, 3), FLOAT), 2, 2)
    assert exp.saved == (Array((), FLOAT),)  # a NumPy scalar is an array without axes


def test_equal_work_is_equal_and_can_be_looked_up():
    with Kept() as kept:
        for _ in range(2):
            cross_entropy(Tensor(np.ones((4, 3), np.float32)), np.zeros(4, np.int64))
            Tensor(np.ones((4, 3), np.float32))[np.array([0, 1])]
    assert len(kept.operations) == 6
    assert len(set(kept.operations)) == 3
    assert kept.operations[1].inputs[1] == Array((4,), INT)


def test_no_array_is_kept_alive():
    with Kept() as kept:
        x = np.ones((4, 3), np.float32)
        gone = weakref.ref(x)
        Tensor(x, requires_grad=True).exp().sum().backward()
        del x
        assert gone() is None
    assert len(kept.operations) == 5
