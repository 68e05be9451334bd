"""The price of a call."""

import numpy as np
import pytest

import tinytorch
from tests.functions import all_functions, has_derivative
from tinytorch import no_grad, optim
from tinytorch.autograd import Function
from tinytorch.profiling.bottlenecks import overhead
from tinytorch.profiling.bottlenecks.overhead import Prices, small_calls
from tinytorch.profiling.operation import Array, Operation
from tinytorch.profiling.profiler.context import ProfilerContext

PARAMETERS = (Array((3,), np.dtype(np.float32)),) * 4


@pytest.fixture(autouse=True)
def nothing_is_known():
    overhead._measured.cache_clear()


class Unknown(Function):
    """Nobody measured it."""


def test_every_operation_of_the_framework_is_called_on_very_little():
    calls = dict(small_calls())
    assert calls.keys() == set(all_functions())
    for inputs in calls.values():
        assert max(np.size(getattr(x, "data", x)) for x in inputs if not isinstance(x, tuple)) <= 9


@pytest.mark.parametrize("backend", ["naive", "numpy"])
def test_operations_derivatives_and_optimizers_have_prices(backend):
    with tinytorch.backend(backend):
        for function in all_functions():
            measured = overhead._measured(backend, function)
            assert measured.keys() == ({"forward", "backward"} if has_derivative(function) else {"forward"})
            assert min(measured.values()) > 0
        assert overhead._measured(backend, optim.AdamW)["optimizer"] > 0
        assert overhead._measured(backend, Unknown) == {}


def test_a_price_is_measured_when_it_is_asked_for_and_once_under_each_backend():
    prices, operation = Prices(), Operation("forward", tinytorch.ops.elementwise.Neg, PARAMETERS[:1])
    for backend, known in (("numpy", 2), ("numpy", 2), ("naive", 4)):
        with tinytorch.backend(backend):
            assert prices.of(operation) > 0
        assert overhead._measured.cache_info().misses == known  # the operation, and an addition


def test_measuring_is_neither_recorded_nor_kept_from_recording_derivatives():
    with tinytorch.backend("numpy"), ProfilerContext() as prof, no_grad():
        assert overhead._measured("numpy", tinytorch.ops.elementwise.Neg)["backward"] > 0
    assert prof.events == ()


def test_a_step_costs_a_call_for_each_parameter():
    assert Prices(2.0).of(Operation("optimizer", optim.SGD, PARAMETERS)) == 8.0
    assert Prices(2.0).of(Operation("forward", Unknown, PARAMETERS)) == 2.0
    step = Prices().of(Operation("optimizer", optim.SGD, PARAMETERS))
    assert step == 4 * overhead._measured(tinytorch.kernels.backend.current_backend(), optim.SGD)["optimizer"]


def test_an_operation_of_your_own_costs_as_much_as_an_addition():
    prices = Prices()
    assert prices.of(Operation("forward", Unknown, PARAMETERS)) == prices.least
    assert prices.of(Operation("backward", Unknown, PARAMETERS)) == prices.least
