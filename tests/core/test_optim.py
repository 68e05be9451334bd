"""Optimizers, schedules and clipping; their steps are compared with PyTorch's in test_against_torch.py."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import Tensor, optim
from tinytorch.optim import clip_grad_norm_, warmup_cosine

OPTIMIZERS = {
    "SGD": lambda params: optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda params: optim.AdamW(params, lr=0.1, weight_decay=0.01),
}
each_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def parameters() -> list[Tensor]:
    rng = np.random.default_rng(0)
    return [Tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=True) for shape in ((3, 2), (2,))]


def take_steps(optimizer: optim.Optimizer, numbers: range) -> None:
    """Minimize the distance to a target that moves with the number of the step."""
    for number in numbers:
        optimizer.zero_grad()
        a, b = optimizer.params
        ((a + b - 0.1 * number) ** 2).mean().backward()
        optimizer.step()


@each_optimizer
def test_a_restored_state_goes_on_as_if_it_had_never_stopped(make):
    whole = make(parameters())
    take_steps(whole, range(9))

    first = make(parameters())
    take_steps(first, range(4))
    state = {name: array.copy() for name, array in first.state_dict().items()}
    second = make([Tensor(p.data.copy(), requires_grad=True) for p in first.params])
    second.load_state_dict(state)
    assert second.steps == 4
    take_steps(second, range(4, 9))

    for p, q in zip(whole.params, second.params, strict=True):
        assert p.data.tobytes() == q.data.tobytes()
    for name, array in whole.state_dict().items():
        np.testing.assert_array_equal(array, second.state_dict()[name])


@each_optimizer
@pytest.mark.parametrize("damage", ["missing", "unexpected", "shape", "shape that broadcasts"])
def test_a_state_that_does_not_fit_names_the_path_and_changes_nothing(make, damage):
    optimizer = make(parameters())
    take_steps(optimizer, range(2))
    before = {name: array.copy() for name, array in optimizer.state_dict().items()}
    state = {name: array + 1 for name, array in before.items()}
    name = list(state)[-1]  # the last one: all others fit
    if damage == "missing":
        del state[name]
    elif damage == "unexpected":
        state[name := "7.mean"] = np.ones(2)
    else:
        state[name] = np.ones(5 if damage == "shape" else 1)
    with pytest.raises((KeyError, ValueError), match=name):
        optimizer.load_state_dict(state)
    for key, array in optimizer.state_dict().items():
        np.testing.assert_array_equal(array, before[key])


@each_optimizer
def test_a_step_changes_the_arrays_in_place_and_only_where_there_is_a_gradient(make):
    params = parameters()
    arrays, before = [p.data for p in params], [p.data.copy() for p in params]
    optimizer = make(params)
    (params[0] ** 2).sum().backward()
    optimizer.step()
    assert all(p.data is array for p, array in zip(params, arrays, strict=True))
    assert not (params[0].data == before[0]).any()
    np.testing.assert_array_equal(params[1].data, before[1])
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)


@each_optimizer
def test_a_gradient_of_another_shape_is_refused_before_anything_is_changed(make):
    params = parameters()
    before, optimizer = [p.data.copy() for p in params], make(params)
    for p in params:
        p.grad = Tensor(np.ones(2, np.float32))  # the second one's shape
    with pytest.raises(ValueError, match=r"shape \(3, 2\) has a gradient of shape \(2,\)"):
        optimizer.step()
    assert optimizer.steps == 0
    for p, array in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.data, array)


@each_optimizer
def test_parameters_may_come_from_a_generator(make):
    assert len(make(p for p in parameters()).params) == 2


@each_optimizer
def test_a_learning_rate_of_numpy_keeps_parameters_float32(make):
    optimizer = make(parameters())
    optimizer.lr = np.float64(0.1)
    take_steps(optimizer, range(2))
    assert {p.dtype for p in optimizer.params} == {np.dtype(np.float32)}


REFUSED = {
    "no parameters": ("at least one", lambda p: optim.SGD([], 0.1)),
    "negative learning rate": ("-0.1", lambda p: optim.SGD(p, -0.1)),
    "NaN as learning rate": ("nan", lambda p: optim.AdamW(p, math.nan)),
    "negative momentum": ("-0.5", lambda p: optim.SGD(p, 0.1, momentum=-0.5)),
    "negative weight decay of SGD": ("-0.5", lambda p: optim.SGD(p, 0.1, weight_decay=-0.5)),
    "negative weight decay of AdamW": ("-0.5", lambda p: optim.AdamW(p, weight_decay=-0.5)),
    "first beta of 1": ("1.0", lambda p: optim.AdamW(p, betas=(1.0, 0.9))),
    "negative second beta": ("-0.9", lambda p: optim.AdamW(p, betas=(0.9, -0.9))),
    "negative eps": ("-1e-08", lambda p: optim.AdamW(p, eps=-1e-8)),
    "negative norm": ("-1", lambda p: clip_grad_norm_(p, -1.0)),
}


@pytest.mark.parametrize(("message", "call"), REFUSED.values(), ids=REFUSED)
def test_arguments_that_pytorch_refuses_are_refused_here_too(message, call):
    with pytest.raises(ValueError, match=message):
        call(parameters())


# The schedule

totals = st.integers(1, 60)


@settings(max_examples=40)
@given(total=totals, data=st.data(), final=st.floats(0, 1))
def test_the_schedule_rises_to_one_and_falls_to_its_end(total, data, final):
    warmup = data.draw(st.integers(0, total))
    factors = [warmup_cosine(step, total, warmup, final) for step in range(total)]
    assert all(0 <= f <= 1 for f in factors)
    rising, falling = factors[:warmup], factors[warmup:]
    np.testing.assert_allclose(rising, [(i + 1) / warmup for i in range(warmup)])
    assert all(a >= b for a, b in itertools.pairwise(falling))
    if falling:
        assert falling[0] == 1.0
    if len(falling) > 1:
        assert falling[-1] == pytest.approx(final)
        middle = [warmup_cosine(warmup + i, total, warmup, final) for i in (0, len(falling) - 1)]
        assert sum(falling) / len(falling) == pytest.approx(sum(middle) / 2)  # a half cosine is symmetric


def test_after_its_end_the_schedule_stays_at_its_final_value():
    assert warmup_cosine(100, total_steps=10, final=0.25) == 0.25


# Clipping


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), max_norm=st.floats(1e-3, 1e3))
def test_clipping_bounds_the_joint_norm_and_keeps_the_direction(seed, max_norm):
    rng = np.random.default_rng(seed)
    params = [Tensor(np.zeros(n, np.float32), requires_grad=True) for n in (3, 1, 2)]
    for p in params[:2]:  # the third one has no gradient
        p.grad = Tensor(rng.standard_normal(p.shape).astype(np.float32) * np.float32(10) ** rng.integers(-2, 3))
    before = np.concatenate([p.grad.data.copy() for p in params[:2]]).astype(np.float64)
    returned = clip_grad_norm_((p for p in params), max_norm)
    after = np.concatenate([p.grad.data for p in params[:2]])
    norm = np.linalg.norm(before)
    assert returned == pytest.approx(norm, rel=1e-5)
    np.testing.assert_allclose(after, before * min(1.0, max_norm / norm), rtol=1e-5)
    assert params[2].grad is None


def test_a_gradient_that_is_short_enough_is_not_touched():
    (p, _) = parameters()
    p.grad = Tensor(np.full(p.shape, 0.1, np.float32))
    before = p.grad.data.tobytes()
    clip_grad_norm_([p], max_norm=1.0)
    assert p.grad.data.tobytes() == before
