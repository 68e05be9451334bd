"""Training on holds the zeros, whatever happens, and the same seed gives the same weights."""

import copy

import numpy as np
import pytest

import tinytorch
from tests.states import assert_same_state, state_of
from tinytorch import Tensor, data, nn
from tinytorch.compression import (
    GradualSchedule,
    MagnitudePruner,
    SemiStructuredPruner,
    fine_tune,
    fine_tuning,
    measure_sparsity,
)
from tinytorch.zoo.evaluation import accuracy

DIGITS = data.digits()
FEW = DIGITS.images[:300], DIGITS.labels[:300]
PRUNERS = {
    "one shot": lambda: MagnitudePruner(0.7),
    "gradual": lambda: MagnitudePruner(0.8, schedule=GradualSchedule(begin=0, end=8, every=2)),
    "2:4": SemiStructuredPruner,
}


def small(seed=0):
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10, rng=rng)
    )


def tuned(model, seed=0, images=FEW, **options):
    options = {"epochs": 2, "lr": 3e-3, "progress": False} | options
    return fine_tune(model, images, rng=np.random.default_rng(seed), **options)


def assert_zeros_hold(model, pruner):
    layers = dict(model.named_modules())
    for path, mask in pruner.masks.items():
        assert (~mask).any()
        assert not layers[path].weight.data[~mask].any()


@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS)
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("taught", [False, True])
def test_zeros_stay_zero_while_the_others_learn(pruner, decay, taught):
    model = small()
    pruner = pruner().prepare(model)
    before = state_of(model)[0]
    losses = tuned(model, pruner=pruner, weight_decay=decay, teacher=small(1) if taught else None, epochs=3)
    assert_zeros_hold(model, pruner)
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    for name in ("0.weight", "4.weight"):
        kept = pruner.masks[name.removesuffix(".weight")]
        assert (model.state_dict()[name][kept] != before[name][kept]).mean() > 0.9
    assert not any(module.training for module in model.modules())


def test_a_gradual_schedule_follows_the_steps_and_ends_at_its_sparsity():
    model = small()
    pruner = PRUNERS["gradual"]().prepare(model)
    assert measure_sparsity(model).sparsity == 0
    tuned(model, pruner=pruner)
    assert pruner.steps == 2 * 5
    assert pruner.report().sparsity == pytest.approx(0.8, abs=0.001)


@pytest.mark.parametrize("taught", [False, True])
def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_one_others(taught):
    states = []
    for seed in (0, 0, 1):
        model = small()
        tuned(model, seed, pruner=MagnitudePruner(0.7).prepare(model), teacher=small(1) if taught else None)
        states.append(b"".join(array.tobytes() for array in model.state_dict().values()))
    assert states[0] == states[1] != states[2]


def test_training_on_gives_back_what_pruning_took():
    model = small()
    tuned(model, images=DIGITS, epochs=5)
    before = accuracy(model, DIGITS)
    pruner = MagnitudePruner(0.7).prepare(model)
    assert accuracy(model, DIGITS) < before - 0.1
    tuned(model, images=DIGITS, pruner=pruner, epochs=3)
    assert accuracy(model, DIGITS) > before - 0.03


def test_the_learning_rate_falls_along_a_half_cosine_and_gradients_are_clipped(monkeypatch):
    seen, norms = [], []
    step = tinytorch.optim.AdamW.step

    def watched(self):
        seen.append((self.lr, self.weight_decay))
        norms.append(np.sqrt(sum((p.grad.data**2).sum() for p in self.params)))
        step(self)

    monkeypatch.setattr(tinytorch.optim.AdamW, "step", watched)
    tuned(small(), lr=0.1, weight_decay=0.5)
    assert seen == [(pytest.approx(0.05 * (1 + np.cos(np.pi * i / 9)), abs=1e-12), 0.5) for i in range(10)]
    assert max(norms) == pytest.approx(1.0, rel=1e-5)


# The teacher


def test_the_teacher_is_asked_in_evaluation_mode_and_left_as_it_was():
    teacher = small(1).train()
    teacher[2].eval()
    before = state_of(teacher)
    losses = tuned(small(), teacher=teacher)
    assert_same_state(state_of(teacher), before)
    assert losses == tuned(small(), teacher=small(1).eval())


def test_a_student_comes_nearer_to_its_teacher_and_temperature_and_alpha_are_used():
    teacher = small(1)
    tuned(teacher, images=DIGITS, epochs=5)
    labels = FEW[1][np.random.default_rng(0).permutation(300)]  # of no use: only the teacher says what is right
    losses = set()
    for options in ({}, {"temperature": 1.0}, {"alpha": 0.5}):
        student = small(2)
        losses.add(tuned(student, images=(FEW[0], labels), teacher=teacher, lr=1e-2, **options)[-1])
    assert len(losses) == 3
    student = small(2)
    tuned(student, images=(FEW[0], labels), teacher=teacher, lr=1e-2, epochs=20, alpha=1.0)
    x = Tensor(DIGITS.images)
    assert (student(x).data.argmax(1) == teacher(x).data.argmax(1)).mean() > 0.85


def test_the_model_as_it_is_may_be_its_own_teacher():
    model, other = small().eval(), small().eval()
    assert tuned(model, teacher=model) == tuned(other, teacher=copy.deepcopy(other))
    assert_same_state(state_of(model), state_of(other))


# What stops it


@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS)
def test_ctrl_c_in_the_middle_of_a_step_leaves_the_zeros(pruner, monkeypatch):
    """The optimizer has moved weights that the masks exclude, and the pruner did not get to set them to zero."""
    model = small()
    pruner = pruner().prepare(model)
    step = tinytorch.optim.AdamW.step

    def interrupted(self):
        step(self)
        if self.steps == 7:
            assert any(
                dict(model.named_modules())[path].weight.data[~mask].any() for path, mask in pruner.masks.items()
            )
            raise KeyboardInterrupt

    monkeypatch.setattr(tinytorch.optim.AdamW, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuned(model, pruner=pruner)
    assert pruner.steps == 6
    assert_zeros_hold(model, pruner)
    assert not any(module.training for module in model.modules())


def test_ctrl_c_in_a_loss_leaves_the_zeros(monkeypatch):
    model, calls = small(), []
    pruner = MagnitudePruner(0.7).prepare(model)

    def interrupted(outputs, labels):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(outputs, labels)

    monkeypatch.setattr(fine_tuning, "cross_entropy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuned(model, pruner=pruner)
    assert pruner.steps == 3
    assert_zeros_hold(model, pruner)
    assert not any(module.training for module in model.modules())


def test_a_loss_that_is_no_number_stops_the_training():
    model = small()
    pruner = MagnitudePruner(0.7).prepare(model)
    model[4].bias.data[0] = np.nan
    before = [p.data.copy() for p in model.parameters()]
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0: begin anew, with a lower lr"):
        tuned(model, pruner=pruner)
    assert_zeros_hold(model, pruner)
    for p, array in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.data, array)


def test_nothing_goes_to_stderr_where_that_is_no_terminal(capsys):
    tuned(small(), progress=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("images", "labels", "options", "error", "words"),
    [
        (DIGITS.images[:0], DIGITS.labels[:0], {}, ValueError, "got 0 and 0"),
        (DIGITS.images[:5], DIGITS.labels[:4], {}, ValueError, "got 5 and 4"),
        (DIGITS.images[:5].astype(np.float64), DIGITS.labels[:5], {}, TypeError, "float32, not float64"),
        (DIGITS.images[:5], DIGITS.labels[:5], {"epochs": 0}, ValueError, "1 or more, got 0 and 64"),
        (DIGITS.images[:5], DIGITS.labels[:5], {"batch_size": 0}, ValueError, "got 2 and 0"),
        (DIGITS.images[:5], DIGITS.labels[:5], {"lr": -1.0}, ValueError, "lr must not be negative"),
        (DIGITS.images[:5], DIGITS.labels[:5], {"weight_decay": -1.0}, ValueError, "weight_decay must not be"),
        (DIGITS.images[:5], DIGITS.labels[:5], {"pruner": MagnitudePruner(0.5)}, RuntimeError, "holds no model"),
        (
            DIGITS.images[:5], DIGITS.labels[:5], {"pruner": MagnitudePruner(0.5).prepare(small())},
            ValueError, "holds another model",
        ),
    ],
)  # fmt: skip
def test_training_refuses_what_it_cannot_use(images, labels, options, error, words):
    model = small().train()
    before = state_of(model)
    with pytest.raises(error, match=words):
        tuned(model, images=(images, labels), **options)
    assert_same_state(state_of(model), before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"teacher": nn.Sequential(nn.Flatten(), nn.Linear(64, 3))}, r"teacher's of that shape, got \(64, 3\)"),
        ({"teacher": small(1), "alpha": 2.0}, "it lies in 0 ... 1, got 2.0"),
        ({"teacher": small(1), "temperature": 0.0}, "above 0, and finite, got 0.0"),
    ],
)
def test_a_teacher_of_no_use_is_named_and_changes_no_weight(options, words):
    model = small()
    before = {path: p.data.copy() for path, p in model.named_parameters()}
    with pytest.raises(ValueError, match=words):
        tuned(model, **options)
    for path, p in model.named_parameters():
        np.testing.assert_array_equal(p.data, before[path])
