"""What the chapter has its reader derive by hand is what the instruments find."""

import itertools
from functools import partial

import numpy as np
import pytest

from tests import solutions
from tinytorch import Tensor, nn
from tinytorch.profiling import FLOPCounter, MemoryProfiler
from tinytorch.profiling.event import Event, self_times

solved = partial(solutions.solved, "19_profiling")


def chain(widths: tuple[int, ...]) -> nn.Sequential:
    rng = np.random.default_rng(0)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs, rng=rng), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(("batch", "widths"), [(1, (7, 3)), (4, (6, 5, 2)), (8, (4, 8, 9, 3))])
def test_the_bytes_alive_are_those_of_the_memory_profiler(batch, widths):
    model, x = chain(widths), Tensor(np.ones((batch, widths[0]), np.float32))
    with MemoryProfiler(model) as memory:
        y = model(x)
    assert y.requires_grad
    assert memory.peak["inputs"] + memory.peak["activations"] == solved("alive_bytes")(batch, widths)


@pytest.mark.parametrize("first", [True, False])
def test_the_macs_of_a_linear_layer_are_those_of_the_counter(first):
    layer = nn.Linear(6, 5, bias=False, rng=np.random.default_rng(0))
    x = Tensor(np.ones((3, 6), np.float32), requires_grad=not first)
    with FLOPCounter(layer) as counter:
        layer(x).sum().backward()
    assert counter.total.macs == solved("linear_macs")(3, 6, 5, first)


def test_the_reader_s_self_times_are_the_package_s():
    calls = ((9, -1), (4, 0), (2, 1), (3, 0), (5, -1))
    events = [Event("range", "r", "", 0, duration, parent) for duration, parent in calls]
    assert solved("own_times")(calls) == self_times(events)


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.99])
def test_the_slowest_of_so_many_samples_is_rarely_below_the_percentile(fraction):
    n = solved("samples_for_slowest")(fraction)
    slowest = np.random.default_rng(0).random((4000, n)).max(axis=1)
    assert (slowest < fraction).mean() == pytest.approx(fraction**n, abs=0.015)
    assert fraction**n <= 0.05 < fraction ** (n - 1)
