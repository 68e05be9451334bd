"""A block's step in one kernel: what its layers compute one by one, on every backend."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinytorch import Tensor, backend, nn, no_grad
from tinytorch.kernels.decoding import BlockWeights, decoder_step
from tinytorch.ops.decoding import DecoderStep

SIZES = st.integers(1, 9)


def drawn(shared, group, depth, batch, past, wide, seed, late):
    rng = np.random.default_rng(seed)
    heads = shared * group
    width, rows = heads * depth, (heads + 2 * shared) * depth
    sizes = (width,), (width,), (rows, width), (rows,), (width, width), (width,)
    sizes += (width,), (width,), (wide, width), (wide,), (width, wide), (width,)
    weights = BlockWeights(*(rng.normal(0, 0.5, size).astype(np.float32) for size in sizes))
    keys, values = rng.normal(0, 1, (2, batch, shared, past + 2, depth)).astype(np.float32)
    starts = rng.integers(0, past + 1, batch) if late else None
    return rng.normal(0, 1, (batch, width)).astype(np.float32), weights, keys, values, heads, past, starts, 1e-5


CASES = st.tuples(
    st.integers(1, 3), st.integers(1, 3), SIZES, SIZES, st.integers(0, 40), st.integers(1, 40), st.integers(0, 99),
    st.booleans(),
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
        x, weights, keys, values, *rest = drawn(*sizes)
        with backend(each):
            results.append((decoder_step(x, weights, keys, values, *rest), keys, values))
    for ours, numpys in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(ours, numpys, rtol=1e-5, atol=2e-5)


@settings(max_examples=20)
@given(st.sampled_from([(4, 4), (4, 2), (6, 1)]), st.integers(1, 5), st.integers(1, 8), st.integers(0, 99))
def test_it_does_what_the_layers_of_a_block_do_one_by_one(heads, batch, past, seed):
    rng = np.random.default_rng(seed)
    block = nn.TransformerBlock(12, heads[0], rng=rng, num_kv_heads=heads[1])
    for p in block.parameters():
        p.data[...] = rng.normal(0.0, 0.5, p.shape)
    x = Tensor(rng.normal(0, 1, (batch, past + 1, 12)).astype(np.float32))
    cache = nn.PastKeyValue(batch, heads[1], past + 1, 12 // heads[0])
    with no_grad():
        block(x[:, :past], cache)
        np.testing.assert_allclose(block(x[:, past:], cache).data, block(x).data[:, past:], rtol=0, atol=1e-5)
    assert cache.length == past + 1


def test_it_leaves_its_input_and_all_other_positions_as_they_were():
    x, weights, keys, values, heads, past, starts, eps = drawn(2, 2, 8, 3, 5, 30, 0, True)
    before = [array.copy() for array in (x, keys, values)]
    decoder_step(x, weights, keys, values, heads, past, starts, eps)
    np.testing.assert_array_equal(x, before[0])
    for cache, old in ((keys, before[1]), (values, before[2])):
        assert (cache[:, :, past] != old[:, :, past]).all()
        cache[:, :, past] = old[:, :, past]
        np.testing.assert_array_equal(cache, old)


def test_what_lies_before_a_sequence_s_start_is_not_looked_at():
    results = []
    for garbage in (0.0, 1e20):
        x, weights, keys, values, heads, past, _, eps = drawn(2, 1, 8, 2, 5, 30, 0, False)
        keys[:, :, :3] = values[:, :, :3] = garbage
        results.append(decoder_step(x, weights, keys, values, heads, past, np.array([3, 4]), eps))
    np.testing.assert_array_equal(*results)


# When it is used


def operations(model: nn.Module, run) -> list[str]:
    from tinytorch.profiling import FLOPCounter

    with FLOPCounter(model) as counter, no_grad():
        run()
    return list(counter.by_operation())


def test_one_operation_does_a_block_where_one_position_follows_others():
    model = nn.GPT(7, 8, 2, 2, 9, rng=np.random.default_rng(0))
    cache = nn.KVCache.of(model)
    assert DecoderStep.__name__ not in operations(model, lambda: model(np.array([[1, 2]]), cache))
    assert DecoderStep.__name__ in operations(model, lambda: model(np.array([[3]]), cache))
    assert DecoderStep.__name__ not in operations(model, lambda: model(np.array([[3]])))


def test_a_layer_that_was_exchanged_is_called():
    model = nn.GPT(7, 8, 1, 2, 9, rng=np.random.default_rng(0))
    calls = []

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(x.shape)
            return super().forward(x)

    block = model.blocks[0]
    block.mlp = nn.Sequential(Watched(8, 32), nn.GELU(), nn.Linear(32, 8))
    cache = nn.KVCache.of(model)
    with no_grad():
        model(np.array([[1, 2]]), cache)
        model(np.array([[3]]), cache)
    assert calls == [(1, 2, 8), (1, 1, 8)]


def test_a_gradient_that_would_be_needed_is_an_error_also_for_one_position():
    block, cache = nn.TransformerBlock(8, 2), nn.PastKeyValue(1, 2, 4, 4)
    with pytest.raises(RuntimeError, match="no_grad"):
        block(Tensor(np.ones((1, 1, 8), np.float32)), cache)
    assert cache.length == 0
