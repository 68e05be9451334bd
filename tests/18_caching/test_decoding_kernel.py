"""A GPT's step in one kernel: what its layers compute one by one, on every backend."""

import copy

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinytorch import Tensor, backend, nn, no_grad
from tinytorch.kernels.decoding import BlockWeights, DecoderWeights, decoder_step
from tinytorch.ops.decoding import DecoderStep

SIZES = st.integers(1, 9)


def drawn(shared, group, depth, batch, past, wide, seed, late, layers=2, vocab=11):
    rng = np.random.default_rng(seed)
    heads = shared * group
    width, rows = heads * depth, (heads + 2 * shared) * depth
    sizes = (width,), (width,), (rows, width), (rows,), (width, width), (width,)
    sizes += (width,), (width,), (wide, width), (wide,), (width, wide), (width,)

    def numbers(*shape):
        return rng.normal(0, 0.5, shape).astype(np.float32)

    blocks = tuple(BlockWeights(*(numbers(*size) for size in sizes)) for _ in range(layers))
    weights = DecoderWeights(blocks, numbers(past + 1, width), numbers(width), numbers(width), numbers(vocab, width))
    keys, values = rng.normal(0, 1, (2, layers, batch, shared, past + 2, depth)).astype(np.float32)
    starts = rng.integers(0, past + 1, batch) if late else np.zeros(batch, np.int64)
    ids = rng.integers(0, vocab, batch)
    return numbers(vocab, width), ids, weights, keys, values, heads, past, starts, 1e-5


CASES = st.tuples(
    st.integers(1, 3), st.integers(1, 3), SIZES, SIZES, st.integers(0, 40), st.integers(1, 40), st.integers(0, 99),
    st.booleans(), st.integers(1, 3), st.integers(1, 40),
)  # fmt: skip


@pytest.mark.parametrize("name", ["naive", "numba"])
@settings(max_examples=30)
@example(sizes=(4, 1, 32, 1, 7, 512, 0, False))
@example(sizes=(2, 2, 16, 9, 70, 20, 0, True))
@given(sizes=CASES)
def test_it_does_what_the_numpy_version_does(name, sizes):
    if name == "numba":
        pytest.importorskip("numba")
    results = []
    for each in ("numpy", name):
        arguments = drawn(*sizes)
        with backend(each):
            results.append((decoder_step(*arguments), *arguments[3:5]))
    for ours, numpys in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(ours, numpys, rtol=1e-4, atol=1e-4)


def test_weights_in_pieces_give_the_same():
    pytest.importorskip("numba")
    arguments = list(drawn(2, 1, 8, 3, 5, 30, 0, True))
    with backend("numba"):
        expected = decoder_step(*arguments)
        weights = arguments[2]
        assert weights.addresses is not None
        block = weights.blocks[0]._replace(up=np.asfortranarray(weights.blocks[0].up))
        arguments[2] = DecoderWeights((block, *weights.blocks[1:]), *weights[1:])
        assert arguments[2].addresses is None
        np.testing.assert_allclose(decoder_step(*arguments), expected, rtol=1e-4, atol=1e-4)


def test_a_copy_of_weights_tells_where_it_lies_itself():
    weights = drawn(2, 1, 8, 3, 5, 30, 0, True)[2]
    copied = copy.deepcopy(weights)
    assert weights.addresses is not None
    assert not set(weights.addresses) & set(copy.deepcopy(weights).addresses)
    assert not set(weights.addresses) & set(copied.addresses)


@settings(max_examples=20)
@given(st.sampled_from([(4, 4), (4, 2), (6, 1)]), st.integers(1, 5), st.integers(1, 8), st.integers(0, 99))
def test_it_does_what_the_layers_of_a_model_do_one_by_one(heads, batch, past, seed):
    rng = np.random.default_rng(seed)
    model = nn.GPT(7, 12, 2, heads[0], past + 1, rng=rng, num_kv_heads=heads[1])
    for p in model.parameters():
        p.data[...] = rng.normal(0.0, 0.5, p.shape)
    ids = rng.integers(0, 7, (batch, past + 1))
    cache = nn.KVCache.of(model, batch)
    with no_grad():
        model(ids[:, :past], cache)
        np.testing.assert_allclose(model(ids[:, past:], cache).data, model(ids).data[:, past:], rtol=0, atol=2e-5)
    assert [layer.length for layer in cache] == [past + 1] * 2


def test_it_leaves_its_input_and_all_other_positions_as_they_were():
    arguments = drawn(2, 2, 8, 3, 5, 30, 0, True)
    before, past = copy.deepcopy(arguments), arguments[6]
    decoder_step(*arguments)
    np.testing.assert_array_equal(arguments[0], before[0])
    for cache, old in zip(arguments[3:5], before[3:5], strict=True):
        assert (cache[..., past, :] != old[..., past, :]).all()
        cache[..., past, :] = old[..., past, :]
        np.testing.assert_array_equal(cache, old)


def test_what_lies_before_a_sequence_s_start_is_not_looked_at():
    results = []
    for garbage in (0.0, 1e20):
        arguments = drawn(2, 1, 8, 2, 5, 30, 0, False)
        for cache in arguments[3:5]:
            cache[..., :3, :] = garbage
        results.append(decoder_step(*arguments[:7], np.array([3, 4]), 1e-5))
    np.testing.assert_array_equal(*results)


# When it is used


def operations(model: nn.Module, run) -> list[str]:
    from tinytorch.profiling import FLOPCounter

    with FLOPCounter(model) as counter, no_grad():
        run()
    return list(counter.by_operation())


def test_one_operation_does_a_step_where_one_position_follows_others():
    model = nn.GPT(7, 8, 2, 2, 9, rng=np.random.default_rng(0))
    cache = nn.KVCache.of(model)
    assert DecoderStep.__name__ not in operations(model, lambda: model(np.array([[1, 2]]), cache))
    assert DecoderStep.__name__ in operations(model, lambda: model(np.array([[3]]), cache))
    assert DecoderStep.__name__ not in operations(model, lambda: model(np.array([[3]])))


def step(model: nn.GPT) -> np.ndarray:
    """Feed two positions at once, then a third; return its scores."""
    cache = nn.KVCache.of(model)
    with no_grad():
        model(np.array([[1, 2]]), cache)
        return model(np.array([[3]]), cache).data


def whole(model: nn.GPT) -> np.ndarray:
    with no_grad():
        return model(np.array([[1, 2, 3]])).data[:, -1:]


def small() -> nn.GPT:
    return nn.GPT(7, 8, 2, 2, 9, rng=np.random.default_rng(0))


def scaled(array: np.ndarray) -> np.ndarray:
    return 3 * array


CHANGES = {
    "a weight in place": lambda m: m.head.weight.data.__imul__(3),
    "another array": lambda m: setattr(m.blocks[0].mlp[0].weight, "data", scaled(m.blocks[0].mlp[0].weight.data)),
    "another parameter": lambda m: setattr(m.blocks[0].norm1, "weight", nn.Parameter(np.full(8, 3, np.float32))),
    "another layer": lambda m: setattr(m.blocks[1].attention, "out_proj", nn.Linear(8, 8)),
    "another block": lambda m: m.blocks.__setitem__(1, nn.TransformerBlock(8, 2)),
    "a block less": lambda m: (m.blocks.pop(), setattr(m, "num_layers", 1)),
    "another activation": lambda m: setattr(m.blocks[0].mlp, "1", nn.ReLU()),
    "another norm's eps": lambda m: setattr(m.blocks[0].norm2, "eps", 0.5),
    "a forward of its own": lambda m: setattr(m.blocks[0].norm2, "forward", lambda x: x),
    "an array for a layer's parameter": lambda m: setattr(m.head, "bias", nn.Parameter(np.ones(7, np.float32))),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_between_two_steps_counts(change):
    model = small()
    before = step(model)
    change(model)
    after = step(model)
    np.testing.assert_allclose(after, whole(model), rtol=0, atol=1e-5)
    assert np.abs(after - before).max() > 1e-4


def test_a_copy_of_a_model_goes_by_its_own_weights():
    model = small()
    before = step(model)
    copied = copy.deepcopy(model)
    step(copied)
    copied.head.weight.data *= 3
    np.testing.assert_array_equal(step(model), before)
    np.testing.assert_allclose(step(copied), 3 * before, rtol=1e-5)


def test_padding_looks_at_nothing():
    model, results = small(), []
    for first in (1, 5):
        cache = nn.KVCache.of(model, 2)
        cache.begin_at(np.array([0, 2]))
        with no_grad():
            for ids in ([[1], [first]], [[2], [first]], [[3], [4]], [[4], [5]]):
                scores = model(np.array(ids), cache).data
        results.append(scores[1])
    np.testing.assert_array_equal(*results)
    with no_grad():
        np.testing.assert_allclose(results[0], model(np.array([[4, 5]])).data[0, -1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("ids", "error"), [([[7]], IndexError), ([[-1]], IndexError), ([[0.5]], TypeError)])
def test_ids_that_are_no_tokens_are_refused_in_a_step_too(ids, error):
    model = small()
    cache = nn.KVCache.of(model)
    with no_grad():
        model(np.array([[1, 2]]), cache)
        with pytest.raises(error):
            model(np.array(ids), cache)
    assert [layer.length for layer in cache] == [2, 2]


def test_a_gradient_that_would_be_needed_is_an_error_also_for_one_position():
    block, cache = nn.TransformerBlock(8, 2), nn.PastKeyValue(1, 2, 4, 4)
    with pytest.raises(RuntimeError, match="no_grad"):
        block(Tensor(np.ones((1, 1, 8), np.float32)), cache)
    assert cache.length == 0
