"""Of each m neighbouring weights the n largest stay, and the packed form has the bytes that are counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import Tensor, nn, optim, zoo
from tinytorch.compression import MagnitudePruner, SemiStructuredPruner, measure_sparsity, semi_structured_bytes

few = settings(max_examples=40)
patterns = st.tuples(st.integers(1, 7), st.integers(1, 7)).map(lambda nk: (nk[0], nk[0] + nk[1]))
seeds = st.integers(0, 2**32 - 1)


def small(seed=0):
    """9 inputs and 10: no multiples of 4."""
    rng = np.random.default_rng(seed)
    return nn.Sequential(nn.Conv2d(1, 5, 3, rng=rng), nn.ReLU(), nn.Flatten(), nn.Linear(10, 6, rng=rng))


def groups_of(weight, m):
    """The neighbours of each group, the last one of a row shorter: loops, as the definition says."""
    for row in weight.reshape(len(weight), -1):
        for start in range(0, len(row), m):
            yield row[start : start + m]


@few
@given(seeds, patterns)
def test_the_n_largest_of_each_m_neighbours_stay_and_the_others_are_zero(seed, pattern):
    n, m = pattern
    model, before = small(seed), small(seed)
    pruner = SemiStructuredPruner(n, m).prepare(model)
    for path in ("0", "3"):
        index, mask = int(path), pruner.masks[path]
        old, new = before[index].weight.data, model[index].weight.data
        np.testing.assert_array_equal(new, np.where(mask, old, 0))
        for numbers, kept in zip(groups_of(np.abs(old), m), groups_of(mask, m), strict=True):
            assert kept.sum() == min(n, len(numbers))
            assert numbers[~kept].max(initial=0) <= numbers[kept].min()
        np.testing.assert_array_equal(model[index].bias.data, before[index].bias.data)


def test_equal_weights_keep_the_first_and_zeros_count_as_weights():
    """A group that is all zero keeps n of its places too: hardware reads n numbers of each group."""
    layer = nn.Linear(8, 1)
    layer.weight.data[:] = [[1, -1, 1, -1, 0, 0, 0, 0]]
    pruner = SemiStructuredPruner().prepare(nn.Sequential(layer))
    np.testing.assert_array_equal(layer.weight.data, [[1, -1, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(pruner.masks["0"], [[1, 1, 0, 0, 1, 1, 0, 0]])


def test_half_of_the_reference_cnn_is_zero_but_for_the_convolution_of_nine_inputs():
    report = SemiStructuredPruner().prepare(zoo.load("reference_cnn")).report()
    assert report.layers[0].zeros == 16 * 4  # of 9 inputs 2 + 2 + 1 stay
    assert all(2 * layer.zeros == layer.weights for layer in report.layers[1:])


@few
@given(seeds)
def test_zeros_survive_training_and_the_masks_stay(seed):
    model = nn.Sequential(nn.Linear(10, 6, rng=np.random.default_rng(seed)))
    pruner = SemiStructuredPruner().prepare(model)
    mask, before = pruner.masks["0"], model[0].weight.data.copy()
    x = Tensor(np.random.default_rng(1).standard_normal((8, 10)).astype(np.float32))
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(5):
        loss = (model(x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert model[0].weight.data[~mask].any()
        pruner.step()
        assert not model[0].weight.data[~mask].any()
    np.testing.assert_array_equal(pruner.masks["0"], mask)
    assert (model[0].weight.data[mask] != before[mask]).any()


def test_after_finalize_zeros_are_weights_like_others():
    model = small()
    pruner = SemiStructuredPruner().prepare(model)
    assert pruner.finalize() is model
    zeros = measure_sparsity(model).zeros
    assert zeros == 5 * 4 + 6 * 4
    for call in (pruner.step, pruner.finalize, pruner.report):
        with pytest.raises(RuntimeError, match="holds no model"):
            call()
    MagnitudePruner(0.9).prepare(model)


def test_layers_that_are_excluded_are_left_alone():
    model = small()
    before = model[0].weight.data.copy()
    assert list(SemiStructuredPruner(exclude=["0"]).prepare(model).masks) == ["3"]
    np.testing.assert_array_equal(model[0].weight.data, before)


PRUNERS = {"semi": SemiStructuredPruner, "magnitude": lambda: MagnitudePruner(0.5)}


@pytest.mark.parametrize("one", PRUNERS)
@pytest.mark.parametrize("other", PRUNERS)
def test_a_model_that_any_pruner_holds_is_refused_and_unchanged(one, other):
    first, second, model = PRUNERS[one](), PRUNERS[other](), small()
    first.prepare(model)
    before = model[3].weight.data.copy()
    with pytest.raises(RuntimeError, match="the layer at '0' is held by a pruner"):
        second.prepare(model)
    with pytest.raises(RuntimeError, match="holds a model already"):
        first.prepare(small())
    np.testing.assert_array_equal(model[3].weight.data, before)


def spoiled(value):
    model = small()
    model[3].weight.data[...] = value
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (spoiled(np.nan), "'3' is NaN or infinite at 60 of"),
        (spoiled(0.0), "'3' is all zero"),
        (nn.Sequential(nn.Linear(3, 0)), "'0' has no weights"),
        (nn.Sequential(nn.ReLU()), "nothing to prune"),
    ],
)
def test_a_model_that_cannot_be_pruned_is_named_and_unchanged(model, message):
    before = {path: a.copy() for path, a in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        SemiStructuredPruner().prepare(model)
    for path, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[path])


@pytest.mark.parametrize("pattern", [(0, 4), (4, 4), (5, 4), (-1, 4), (1, 1)])
def test_a_pattern_that_is_none_is_named(pattern):
    for call in (SemiStructuredPruner, lambda n, m: semi_structured_bytes((2, 4), 4, n, m)):
        with pytest.raises(ValueError, match=f"got n = {pattern[0]}, m = {pattern[1]}"):
            call(*pattern)


def test_packed_int8_weights_at_two_of_four_take_five_eighths():
    assert semi_structured_bytes((128, 64), itemsize=1) == 128 * 64 * 5 // 8
    assert semi_structured_bytes((128, 64), itemsize=4) == 128 * 64 * 4 * 17 // 32
    with pytest.raises(ValueError, match="1 byte or more, not 0"):
        semi_structured_bytes((2, 4), itemsize=0)


@few
@given(patterns, st.lists(st.integers(1, 6), min_size=2, max_size=4), st.sampled_from([1, 2, 4]))
def test_the_bytes_counted_are_those_of_values_and_places_laid_out(pattern, shape, itemsize):
    n, m = pattern
    weight = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    layer = nn.Linear(weight[0].size, len(weight), bias=False)
    layer.weight.data[:] = weight.reshape(len(weight), -1)
    kept = SemiStructuredPruner(n, m).prepare(layer).masks[""]
    places = "".join(f"{i:0{len(f'{m - 1:b}')}b}" for group in groups_of(kept, m) for i in np.flatnonzero(group))
    packed = np.packbits(np.array(list(places), np.uint8))
    assert semi_structured_bytes(tuple(shape), itemsize, n, m) == kept.sum() * itemsize + packed.nbytes
