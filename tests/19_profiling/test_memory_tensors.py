"""The books of the arrays that are alive."""

import gc

import numpy as np
import pytest

from tinytorch import Tensor, nn
from tinytorch.autograd import Variable
from tinytorch.nn.functional import cross_entropy
from tinytorch.profiling.memory.tensors import CATEGORIES, LiveTensors, owner_of


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_an_array_counts_from_its_birth_to_its_death():
    tensors = LiveTensors()
    x = floats(3, 4)
    tensors.add(x, "inputs", "x")
    assert tensors.bytes["inputs"] == 48
    del x
    assert sum(tensors.bytes.values()) == 0
    assert tensors.peak["inputs"] == 48
    assert list(tensors.bytes) == list(CATEGORIES)


def test_views_count_once_with_all_of_the_memory_that_they_keep():
    tensors = LiveTensors()
    x = floats(10, 10)
    part = x[2:4].T.reshape(-1)[:0]
    part = x[2:4].T
    assert tensors.add(part, "activations", "part") is not None
    assert tensors.add(x, "inputs", "x") is None
    assert tensors.add(np.broadcast_to(x, (5, 10, 10)), "inputs", "x") is None
    assert tensors.bytes["activations"] == 400
    assert tensors.find(x[0]).name == "part"
    del x
    assert tensors.bytes["activations"] == 400
    del part
    assert tensors.bytes["activations"] == 0


def test_memory_that_numpy_does_not_own_counts_as_far_as_it_is_looked_at():
    tensors = LiveTensors()
    x = np.frombuffer(bytes(80), np.float32)
    tensors.add(x[:3], "inputs", "x")
    assert owner_of(x[:3]) is x
    assert tensors.bytes["inputs"] == 80


def test_nothing_is_no_entry():
    tensors = LiveTensors()
    assert tensors.add(floats(0, 3), "inputs", "x") is None
    assert tensors.at_peak() == []


def test_the_peak_names_what_was_alive_then():
    tensors = LiveTensors()
    a, b = floats(1), floats(3)
    tensors.add(a, "inputs", "a")
    tensors.add(b, "activations", "b")
    del a
    c = floats(2)
    tensors.add(c, "activations", "c")
    del b, c
    d = floats(4)
    tensors.add(d, "gradients", "d")
    assert [(block.name, block.nbytes) for block in tensors.at_peak()] == [("b", 12), ("c", 8)]
    assert sum(tensors.peak.values()) == 20


def test_an_array_at_the_place_of_a_dead_one_is_another():
    tensors = LiveTensors()
    for _ in range(100):
        tensors.add(floats(1000), "activations", "x")
    assert tensors.bytes["activations"] == 0
    assert tensors.peak["activations"] == 4000


def test_a_gradient_counts_together_with_the_array_that_it_was_copied_from():
    tensors = LiveTensors()
    leaf, new = Variable(floats(5), requires_grad=True), floats(5)
    tensors.add(new, "gradients", "new")
    tensors.expect_gradient(leaf, "leaf")
    leaf.grad = Variable(new.copy())
    del new
    assert tensors.bytes["gradients"] == 20
    assert tensors.peak["gradients"] == 40
    assert [block.name for block in tensors.at_peak()] == ["new", "gradient of leaf"]


def test_when_it_has_ended_the_books_stay_as_they_are():
    tensors = LiveTensors()
    x = floats(5)
    tensors.add(x, "inputs", "x")
    tensors.end()
    del x
    assert tensors.bytes["inputs"] == 20


@pytest.mark.parametrize("backward", [False, True])
def test_the_graph_has_no_cycles_so_that_its_arrays_go_with_the_last_reference(backward):
    rng = np.random.default_rng(0)
    model = nn.GPT(7, embed_dim=8, num_layers=2, num_heads=2, max_seq_len=6, rng=rng)
    tensors = LiveTensors()
    gc.collect()
    gc.disable()
    try:
        ids = rng.integers(0, 7, (2, 6))
        logits = model(ids)
        loss = cross_entropy(logits, ids)
        for made in (logits, loss):
            tensors.add(made.data, "activations", "made")
        for node in nodes_of(loss):
            for array in (v.data for v in node.inputs if isinstance(v, Variable) and v.grad_fn is not None):
                tensors.add(array, "activations", "made")
        del node, array
        assert tensors.bytes["activations"] > 1000
        if backward:
            loss.backward()
        del logits, loss, made
        assert tensors.bytes["activations"] == 0
    finally:
        gc.enable()


def nodes_of(root: Tensor) -> list:
    found, stack = [], [root]
    while stack:
        node = stack.pop().grad_fn
        if node is not None and node not in found:
            found.append(node)
            stack += [v for v in node.inputs if v is not None]
    return found
