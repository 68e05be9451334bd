"""Keys and values of 8 bits: nearly the same scores, in nearly a quarter of the bytes."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.models import random_gpt
from tinytorch import backend, data, nn, no_grad, zoo
from tinytorch.caching.quantized import QuantizedKVCache
from tinytorch.kernels.int8_attention import attend_codes
from tinytorch.nn.functional import cross_entropy

SIZES = st.integers(1, 9)


def gpt(seed: int = 0, **how) -> nn.GPT:
    return random_gpt(7, 16, 2, 4, 24, seed=seed, deviation=0.4, **how)


# Attention to codes


CASES = st.tuples(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), SIZES, st.integers(1, 150), st.integers(0, 99)
)


def drawn(batch, shared, group, depth, keys, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (2, batch, shared, keys, depth)).astype(np.int8)
    scales = rng.uniform(0.001, 0.05, (2, batch, keys)).astype(np.float32)
    q = rng.normal(0, 1, (batch, shared * group, depth)).astype(np.float32)
    return q, codes[0], scales[0], codes[1], scales[1]


@pytest.mark.parametrize("name", ["naive", "numba"])
@settings(max_examples=30)
@example(sizes=(2, 4, 1, 32, 200, 0))
@given(sizes=CASES)
def test_attention_to_codes_is_the_same_on_every_backend(name, sizes):
    if name == "numba":
        pytest.importorskip("numba")
    arguments = drawn(*sizes)
    with backend("numpy"):
        expected = attend_codes(*arguments)
    with backend(name):
        np.testing.assert_allclose(attend_codes(*arguments), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=20)
@given(CASES)
def test_it_is_attention_to_what_the_codes_stand_for(sizes):
    q, k, k_scale, v, v_scale = drawn(*sizes)
    group = q.shape[1] // k.shape[1]
    keys, values = (
        np.repeat(codes * scale[:, None, :, None], group, axis=1).astype(np.float64)
        for codes, scale in ((k, k_scale), (v, v_scale))
    )
    scores = (q[:, :, None].astype(np.float64) @ keys.swapaxes(-1, -2)) / np.sqrt(q.shape[2])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    expected = (weights / weights.sum(axis=-1, keepdims=True) @ values)[:, :, 0]
    np.testing.assert_allclose(attend_codes(q, k, k_scale, v, v_scale), expected, rtol=1e-4, atol=1e-5)


# The cache


def test_a_position_takes_two_bytes_for_each_number_and_eight_for_its_scales():
    cache = QuantizedKVCache(batch_size=3, max_seq_len=10, num_layers=2, num_kv_heads=4, head_dim=32)
    assert cache.nbytes == 2 * 3 * 10 * 2 * (4 * 32 + 4)
    assert nn.KVCache(3, 10, 2, 4, 32).nbytes / cache.nbytes > 3.8


@pytest.mark.parametrize("name", ["numpy", "numba"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), length=st.integers(1, 20), cut=st.integers(0, 20), kv=st.sampled_from([4, 2, 1]))
def test_scores_are_nearly_those_of_the_floats(name, seed, length, cut, kv):
    if name == "numba":
        pytest.importorskip("numba")
    model, ids = gpt(seed, num_kv_heads=kv), np.random.default_rng(seed).integers(0, 7, (2, length))
    cache, cut = QuantizedKVCache.of(model, 2), min(cut, length)
    with backend(name), no_grad():
        parts = [model(ids[:, :cut], cache).data] if cut else []
        parts += [model(ids[:, at : at + 1], cache).data for at in range(cut, length)]
        exact = model(ids).data
    difference = np.abs(np.concatenate(parts, axis=1) - exact)
    assert difference.max() < 0.05 * np.abs(exact).max() + 0.05
    assert cache.length == length


def test_what_is_kept_is_within_half_a_code():
    rng = np.random.default_rng(0)
    cache = QuantizedKVCache(2, 6, 1, 3, 5)
    key, value = rng.normal(0, 1, (2, 2, 3, 6, 5)).astype(np.float32)
    value[:, :, 3] = 0  # a position of zeros has scale 0
    cache[0].attend(key, key, value)
    for which, x in enumerate((key, value)):
        scale = cache[0].scales[which][:, None, :, None]
        assert cache[0].codes.dtype == np.int8
        assert (np.abs(cache[0].codes[which] * scale - x) <= scale / 2 * 1.001).all()
    assert (np.abs(cache[0].codes).max(axis=(2, 4))[0] == 127).all()


def test_a_text_can_be_written_with_it_and_goes_on_after_a_cut():
    model = gpt()
    cache = QuantizedKVCache.of(model)
    text = model.generate([1, 2, 3], 10, top_k=1, cache=cache)
    assert cache.length == 12
    cache.truncate(5)
    again = model.generate(text[5:6], 7, top_k=1, cache=cache)
    np.testing.assert_array_equal(again, text[5:])


def test_mistakes_leave_it_as_it_was():
    model, cache = gpt(), QuantizedKVCache.of(gpt(), max_seq_len=4)
    model.generate([1, 2], 2, top_k=1, cache=cache)
    before = cache.length, cache[0].codes.tobytes(), cache[1].scales.tobytes()
    for message, call in (
        ("4 positions|3 of 4", lambda: model.generate([1, 2], 1, cache=cache)),
        ("full: it holds 3 of 4", lambda: no_grad()(model)(np.array([[1, 2]]), cache)),
        ("do not belong", lambda: no_grad()(model)(np.array([[1], [2]]), cache)),
        ("another model", lambda: gpt(1).generate([1], 1, cache=cache)),
        ("cut to 4", lambda: cache.truncate(4)),
        ("at least 1", lambda: QuantizedKVCache(1, 0, 1, 1, 1)),
        ("0", lambda: QuantizedKVCache(1, 1, 0, 1, 1)),
    ):
        with pytest.raises(ValueError, match=message):
            call()
        assert (cache.length, cache[0].codes.tobytes(), cache[1].scales.tobytes()) == before


def test_on_held_out_text_it_loses_less_than_a_hundredth_of_a_nat():
    model, tokens = zoo.load("char_gpt"), data.shakespeare("held-out").tokens.astype(np.int64)
    length, lost = model.max_seq_len, []
    with no_grad():
        for start in range(0, 8 * 4 * length, 4 * length):
            text, following = tokens[start : start + length][None], tokens[start + 1 : start + length + 1]
            caches = None, QuantizedKVCache.of(model)
            exact, rounded = (float(cross_entropy(model(text, cache)[0], following).data) for cache in caches)
            lost.append(rounded - exact)
    assert abs(np.mean(lost)) < 0.01
    assert np.abs(lost).max() > 0  # it is not the same
