"""What is pruned are the smallest weights, as many as were asked for, and they stay zero until they are let go."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import Tensor, nn, optim, zoo
from tinytorch.compression import GradualSchedule, MagnitudePruner, measure_sparsity

few = settings(max_examples=40)
scopes = st.sampled_from(["global", "layer"])


def small(seed=0):
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 6, rng=rng)
    )  # fmt: skip


X = np.random.default_rng(1).standard_normal((8, 2, 6, 6)).astype(np.float32)


def train(model, pruner, steps, lr=0.1):
    optimizer = optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=0.01)
    for _ in range(steps):
        loss = (model(Tensor(X)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.step()
        yield


@few
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.999), scopes)
def test_as_many_weights_become_zero_as_were_asked_for_and_the_smallest(seed, sparsity, scope):
    model = small(seed)
    before = {path: a.copy() for path, a in model.state_dict().items()}
    pruner = MagnitudePruner(sparsity, scope).prepare(model)
    groups = [["0", "4"]] if scope == "global" else [["0"], ["4"]]
    for paths in groups:
        old = np.concatenate([np.abs(before[f"{path}.weight"]).ravel() for path in paths])
        kept = np.concatenate([pruner.masks[path].ravel() for path in paths])
        assert (~kept).sum() == min(round(sparsity * old.size), old.size - 1)
        assert old[~kept].max(initial=0) <= old[kept].min()
    for path, array in model.state_dict().items():
        mask = pruner.masks.get(path.removesuffix(".weight")) if path.endswith("weight") else None
        np.testing.assert_array_equal(array, before[path] if mask is None else np.where(mask, before[path], 0))


def test_a_global_threshold_leaves_layers_differently_sparse():
    report = MagnitudePruner(0.9).prepare(zoo.load("reference_cnn")).report()
    shares = {layer.path: layer.sparsity for layer in report.layers}
    assert report.sparsity == pytest.approx(0.9, abs=1e-4)
    assert shares["0"] < 0.5 < 0.9 < shares["13"]
    assert str(report).splitlines()[-1].startswith("all")
    assert str(report).count("\n") == len(report.layers)


@few
@given(st.integers(0, 2**32 - 1), scopes)
def test_zeros_survive_training_with_momentum_and_decay(seed, scope):
    model = small(seed)
    pruner = MagnitudePruner(0.5, scope).prepare(model)
    masks, before = pruner.masks, model[4].weight.data.copy()
    for _ in train(model, pruner, 5):
        for path, mask in masks.items():
            assert not dict(model.named_modules())[path].weight.data[~mask].any()
    assert (model[4].weight.data[masks["4"]] != before[masks["4"]]).any()
    for path, mask in pruner.masks.items():
        np.testing.assert_array_equal(mask, masks[path])


@few
@given(st.integers(0, 2**32 - 1), scopes)
def test_gradual_pruning_only_adds_zeros_and_ends_at_the_sparsity(seed, scope):
    model, schedule = small(seed), GradualSchedule(begin=2, end=10, every=3)
    pruner = MagnitudePruner(0.8, scope, schedule).prepare(model)
    assert measure_sparsity(model).sparsity == 0
    last, shares = pruner.masks, []
    for _ in train(model, pruner, 12):
        for path, mask in pruner.masks.items():
            assert not (mask & ~last[path]).any()
        last = pruner.masks
        shares.append(measure_sparsity(model).sparsity)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(0.8, abs=0.01)
    assert len(set(shares)) == 4  # after 5, 8 and 10 steps, and none before


def test_after_finalize_zeros_are_weights_like_others():
    model = small()
    pruner = MagnitudePruner(0.5).prepare(model)
    assert pruner.finalize() is model
    assert measure_sparsity(model).sparsity == pytest.approx(0.5, abs=0.01)
    model[4].weight.data[:] = 1.0
    with pytest.raises(RuntimeError, match="holds no model"):
        pruner.step()
    assert (model[4].weight.data == 1.0).all()
    MagnitudePruner(0.1).prepare(model)  # and can be pruned again


def test_a_shared_weight_is_pruned_and_counted_once():
    layer = nn.Linear(4, 4, rng=np.random.default_rng(0))
    model = nn.Sequential(layer, nn.ReLU(), layer)
    report = MagnitudePruner(0.5).prepare(model).report()
    assert (report.weights, report.zeros) == (16, 8)


def test_layers_that_are_excluded_are_left_alone():
    model = small()
    before = model[0].weight.data.copy()
    pruner = MagnitudePruner(0.75, exclude=["0"]).prepare(model)
    np.testing.assert_array_equal(model[0].weight.data, before)
    assert list(pruner.masks) == ["4"]
    assert measure_sparsity(model).zeros == 0.75 * model[4].weight.data.size


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_a_share_that_is_none_is_named(sparsity):
    with pytest.raises(ValueError, match="1 excluded, got"):
        MagnitudePruner(sparsity)


def spoiled(value):
    model = small()
    model[4].weight.data[...] = value
    return model


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (spoiled(np.nan), {}, "'4' is NaN or infinite at 384 of"),
        (spoiled(0.0), {}, "'4' is all zero"),
        (nn.Sequential(nn.ReLU()), {}, "nothing to prune"),
        (small(), {"exclude": ["0", "4"]}, "nothing to prune"),
        (small(), {"exclude": ["1"]}, r"exclude names \['1'\], but the layers are \['0', '4'\]"),
    ],
)
def test_a_model_that_cannot_be_pruned_is_named_and_unchanged(model, options, message):
    before = {path: a.copy() for path, a in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        MagnitudePruner(0.5, **options).prepare(model)
    for path, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[path])


def test_pruning_twice_at_once_is_refused():
    model = small()
    pruner = MagnitudePruner(0.5).prepare(model)
    before = model[4].weight.data.copy()
    with pytest.raises(RuntimeError, match="holds a model already"):
        pruner.prepare(small())
    with pytest.raises(RuntimeError, match="the layer at '0' is held by a pruner"):
        MagnitudePruner(0.9).prepare(model)
    np.testing.assert_array_equal(model[4].weight.data, before)
    with pytest.raises(ValueError, match='scope must be "global" or "layer"'):
        MagnitudePruner(0.5, "all")
