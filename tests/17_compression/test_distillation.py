"""The loss of distillation is the formula, its gradient is the derivative, and at high temperatures matches logits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch
from tinytorch import Tensor
from tinytorch.compression import distillation_loss
from tinytorch.nn.functional import cross_entropy

few = settings(max_examples=60)
seeds = st.integers(0, 2**32 - 1)
temperatures = st.floats(0.5, 20)
weights = st.floats(0, 1)


def drawn(seed, rows=5, classes=4):
    rng = np.random.default_rng(seed)
    return *rng.normal(0, 3, (2, rows, classes)), rng.integers(0, classes, rows)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def loss_and_gradient(outputs, teacher, labels, temperature, alpha):
    x = Tensor(outputs, requires_grad=True)
    loss = distillation_loss(x, teacher, labels, temperature, alpha)
    loss.backward()
    return loss.item(), x.grad.data


@few
@given(seeds, temperatures, weights)
def test_the_loss_is_the_formula(seed, temperature, alpha):
    outputs, teacher, labels = drawn(seed)
    q = np.exp(log_softmax(teacher / temperature))
    soft = -(q * log_softmax(outputs / temperature)).sum(axis=1).mean()
    hard = -log_softmax(outputs)[np.arange(5), labels].mean()
    loss, _ = loss_and_gradient(outputs, teacher, labels, temperature, alpha)
    assert loss == pytest.approx(alpha * temperature**2 * soft + (1 - alpha) * hard, rel=1e-12)


@few
@given(seeds, temperatures, weights)
def test_the_gradient_is_the_formula_and_what_central_differences_say(seed, temperature, alpha):
    outputs, teacher, labels = drawn(seed)
    _, found = loss_and_gradient(outputs, teacher, labels, temperature, alpha)
    p, q = (np.exp(log_softmax(x / temperature)) for x in (outputs, teacher))
    hard = np.exp(log_softmax(outputs)) - np.eye(4)[labels]
    np.testing.assert_allclose(found, (alpha * temperature * (p - q) + (1 - alpha) * hard) / 5, atol=1e-12)
    direction = np.random.default_rng(seed).standard_normal(outputs.shape)
    up, down = (
        distillation_loss(Tensor(outputs + h * direction), teacher, labels, temperature, alpha).item()
        for h in (1e-5, -1e-5)
    )
    assert (found * direction).sum() == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-5 * (1 + temperature**2))


@few
@given(seeds)
def test_at_high_temperatures_the_gradient_is_that_of_matching_logits(seed):
    """The means of the rows are taken away; what is left of the difference falls as 1 / T."""
    outputs, teacher, labels = drawn(seed)
    centred = (outputs - outputs.mean(axis=1, keepdims=True)) - (teacher - teacher.mean(axis=1, keepdims=True))
    matching = centred / outputs.size  # of half the mean squared difference
    errors = [np.abs(loss_and_gradient(outputs, teacher, labels, t, 1.0)[1] - matching).max() for t in (1e2, 1e3, 1e4)]
    scale = np.abs(matching).max()
    assert errors[1] < 0.02 * scale
    assert errors[2] < 0.002 * scale
    assert errors[0] > errors[1] > errors[2]


@few
@given(seeds, temperatures)
def test_nothing_is_better_than_the_teacher_s_own_outputs(seed, temperature):
    outputs, teacher, labels = drawn(seed)
    best, gradient = loss_and_gradient(teacher.copy(), teacher, labels, temperature, 1.0)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)
    assert best <= loss_and_gradient(outputs, teacher, labels, temperature, 1.0)[0]


def test_without_the_teacher_s_weight_it_is_cross_entropy():
    outputs, teacher, labels = drawn(0)
    found = distillation_loss(Tensor(outputs), teacher, labels, alpha=0.0).item()
    assert found == pytest.approx(cross_entropy(Tensor(outputs), labels).item(), rel=1e-15)


def test_outputs_of_more_axes_are_averaged_over_all_rows():
    outputs, teacher, labels = drawn(1, rows=6)
    flat = loss_and_gradient(outputs, teacher, labels, 3.0, 0.7)
    deep = loss_and_gradient(outputs.reshape(2, 3, 4), teacher.reshape(2, 3, 4), labels.reshape(2, 3), 3.0, 0.7)
    assert deep[0] == pytest.approx(flat[0], rel=1e-14)
    np.testing.assert_allclose(deep[1].reshape(6, 4), flat[1], atol=1e-15)


@pytest.mark.parametrize("name", ["naive", "numpy", "numba"])
def test_float32_stays_float32_on_every_backend_and_large_scores_do_not_overflow(name):
    outputs, teacher, labels = drawn(2)
    exact = loss_and_gradient(outputs, teacher, labels, 2.0, 0.5)
    with tinytorch.backend(name):
        loss, gradient = loss_and_gradient(outputs.astype(np.float32), teacher, labels, 2.0, 0.5)
        large = loss_and_gradient(outputs.astype(np.float32) * 1e4, teacher * 1e4, labels, 1.0, 0.9)
    assert gradient.dtype == np.float32
    assert loss == pytest.approx(exact[0], rel=1e-5)
    np.testing.assert_allclose(gradient, exact[1], atol=1e-6)
    assert np.isfinite(large[0])
    assert np.isfinite(large[1]).all()


def test_the_teacher_gets_no_gradient():
    outputs, teacher, labels = drawn(3)
    student, tutor = (Tensor(x, requires_grad=True) for x in (outputs, teacher))
    distillation_loss(student, tutor, Tensor(labels)).backward()
    assert tutor.grad is None
    assert student.grad.data.any()


SCORES = Tensor(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 4)), [0, 1]), r"shape \(2, 3\) need a teacher's of that shape, got \(2, 4\)"),
        ((np.full((2, 3), np.nan), [0, 1]), "the teacher's output is NaN or infinite at 6 of 6 places"),
        ((SCORES, [0, 3]), "class numbers in 0 ... 2"),
        ((SCORES, [0]), r"need targets of \(2,\), got \(1,\)"),
        ((SCORES, [0, 1], 0.0), "above 0, and finite, got 0.0"),
        ((SCORES, [0, 1], float("inf")), "got inf"),
        ((SCORES, [0, 1], float("nan")), "got nan"),
        ((SCORES, [0, 1], 1.0, 1.5), "it lies in 0 ... 1, got 1.5"),
        ((SCORES, [0, 1], 1.0, float("nan")), "got nan"),
    ],
)
def test_what_makes_no_loss_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        distillation_loss(SCORES, *arguments)
