"""What counts is a weight's share of its own layer: no layer is emptied, however small its weights are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import nn, zoo
from tinytorch.compression import GradualSchedule, MagnitudePruner
from tinytorch.compression.layer_adaptive import LayerAdaptivePruner

few = settings(max_examples=40)
seeds = st.integers(0, 2**32 - 1)


def small(seed=0):
    rng = np.random.default_rng(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3, rng=rng), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 6, rng=rng))


def scores_of(weight):
    """As the definition says, weight after weight."""
    squares = weight.astype(np.float64).ravel() ** 2
    return np.array([square / squares[squares >= square].sum() for square in squares])


@few
@given(seeds, st.floats(0, 0.999))
def test_as_many_weights_become_zero_as_were_asked_for_and_those_of_smallest_score(seed, sparsity):
    model = small(seed)
    scores = np.concatenate([scores_of(model[i].weight.data) for i in (0, 3)])
    pruner = LayerAdaptivePruner(sparsity).prepare(model)
    kept = np.concatenate([mask.ravel() for mask in pruner.masks.values()])
    assert (~kept).sum() == min(round(sparsity * kept.size), kept.size - 2)
    assert scores[~kept].max(initial=0) <= scores[kept].min() * (1 + 1e-12)
    for path, mask in pruner.masks.items():
        weight = np.abs(small(seed)[int(path)].weight.data)
        assert weight[~mask].max(initial=0) <= weight[mask].min()
        np.testing.assert_array_equal(model[int(path)].weight.data != 0, mask)


@few
@given(seeds, st.floats(0, 1, exclude_max=True), st.integers(-20, 20))
def test_the_scale_of_a_layer_changes_nothing_where_one_threshold_on_magnitudes_would(seed, sparsity, power):
    masks = []
    for scale in (1.0, 2.0**power):
        model = small(seed)
        model[0].weight.data *= np.float32(scale)
        masks.append(LayerAdaptivePruner(sparsity).prepare(model).masks)
    for path in masks[0]:
        np.testing.assert_array_equal(masks[0][path], masks[1][path])


def test_every_layer_keeps_its_largest_weight_where_one_threshold_empties_a_layer():
    for pruner, left in ((LayerAdaptivePruner(0.999), 1), (MagnitudePruner(0.9), 0)):
        model = small()
        model[0].weight.data *= np.float32(1e-3)
        largest = np.abs(model[0].weight.data).max()
        pruner.prepare(model)
        weights = np.abs(model[0].weight.data[model[0].weight.data != 0])
        assert len(weights) == left
        assert (weights == largest).all()


@few
@given(seeds)
def test_gradual_pruning_only_adds_zeros_and_ends_at_the_sparsity(seed):
    model, rng = small(seed), np.random.default_rng(seed)
    pruner = LayerAdaptivePruner(0.8, GradualSchedule(begin=0, end=6, every=2)).prepare(model)
    before = pruner.masks
    for _ in range(7):
        for parameter in model.parameters():
            parameter.data += rng.standard_normal(parameter.shape).astype(np.float32)
        pruner.step()
        for path, mask in pruner.masks.items():
            assert not (mask & ~before[path]).any()
        before = pruner.masks
    assert pruner.report().zeros == round(0.8 * pruner.report().weights)


def test_layers_that_are_excluded_stay_and_bad_input_is_one_error():
    model = small()
    pruner = LayerAdaptivePruner(0.5, exclude=["0"]).prepare(model)
    assert model[0].weight.data.all()
    assert pruner.report().layers[1].zeros == 192
    with pytest.raises(ValueError, match="sparsity is the share of zeros"):
        LayerAdaptivePruner(1.0)
    with pytest.raises(RuntimeError, match="held by a pruner"):
        LayerAdaptivePruner(0.5).prepare(model)


def test_the_large_layer_of_the_reference_cnn_pays_for_the_small_ones():
    adaptive, magnitude = (
        [layer.sparsity for layer in pruner.prepare(zoo.load("reference_cnn")).report().layers]
        for pruner in (LayerAdaptivePruner(0.95), MagnitudePruner(0.95))
    )
    large = 3  # three quarters of all weights
    assert adaptive[large] > magnitude[large]
    for i in (0, 1, 2, 4):
        assert adaptive[i] < magnitude[i]
