"""A window with sinks: what is looked at, what is forgotten, and memory that does not grow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import random_gpt
from tinytorch import nn, no_grad
from tinytorch.caching.window import WindowKVCache, WindowLayer
from tinytorch.kernels.attention import attention


def gpt(seed: int = 0, **how) -> nn.GPT:
    return random_gpt(7, 8, 2, 4, 40, seed=seed, deviation=0.4, **how)


def cache_of(model: nn.GPT, window: int, sinks: int, batch: int = 1) -> WindowKVCache:
    return WindowKVCache.of(model, batch, window=window, sinks=sinks)


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 20), st.integers(1, 20), st.sampled_from([1, 2]))
def test_a_step_looks_at_the_sinks_and_at_the_last_positions(window, sinks, prompt, steps, group):
    rng = np.random.default_rng(prompt)
    layer = WindowLayer(2, 2, window, sinks, 3)
    keys, values = rng.normal(0, 1, (2, 2, 2, prompt + steps, 3)).astype(np.float32)
    if prompt:
        layer.attend(rng.normal(0, 1, (2, 2 * group, prompt, 3)).astype(np.float32), keys[:, :, :prompt],
                     values[:, :, :prompt])  # fmt: skip
    for at in range(prompt, prompt + steps):
        q = rng.normal(0, 1, (2, 2 * group, 1, 3)).astype(np.float32)
        found = layer.attend(q, keys[:, :, at : at + 1], values[:, :, at : at + 1])
        seen = [t for t in range(at + 1) if t < sinks or t > at - window]
        heads = np.repeat(np.arange(2), group)
        expected = attention(q, keys[:, heads][:, :, seen], values[:, heads][:, :, seen], False)[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        assert layer.held == min(at + 1, sinks + window)


@settings(max_examples=20)
@given(st.integers(1, 15), st.integers(1, 15), st.integers(0, 3))
def test_a_text_shorter_than_the_window_gives_the_scores_of_a_full_cache(prompt, steps, sinks):
    model, ids = gpt(num_kv_heads=2), np.random.default_rng(prompt).integers(0, 7, (2, prompt + steps))
    cache = cache_of(model, 30, sinks, 2)
    with no_grad():
        parts = [model(ids[:, :prompt], cache).data]
        parts += [model(ids[:, at : at + 1], cache).data for at in range(prompt, prompt + steps)]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), model(ids).data, rtol=0, atol=1e-5)


def test_a_prompt_is_read_as_a_whole_also_where_it_is_longer_than_the_window():
    model, ids = gpt(), np.random.default_rng(0).integers(0, 7, (1, 20))
    cache = cache_of(model, 4, 2)
    with no_grad():
        np.testing.assert_allclose(model(ids, cache).data, model(ids).data, rtol=0, atol=1e-5)
    assert cache.length == 20
    assert cache[0].held == 6


def test_its_memory_is_that_of_sinks_and_window_whatever_the_length():
    model = gpt()
    cache = cache_of(model, 6, 2)
    before = cache.nbytes
    assert before == nn.KVCache.of(model, max_seq_len=8).nbytes
    text = model.generate([1, 2, 3], 30, top_k=1, cache=cache)
    assert len(text) == 33
    assert (cache.nbytes, cache.length, cache[0].held) == (before, 32, 8)


def test_it_cannot_be_cut_but_emptied():
    model = gpt()
    cache = cache_of(model, 6, 2)
    first = model.generate([1, 2, 3], 9, top_k=1, cache=cache)
    with pytest.raises(ValueError, match="does not come back"):
        cache.truncate(3)
    cache.truncate(cache.length)
    cache.reset()
    np.testing.assert_array_equal(model.generate([1, 2, 3], 9, top_k=1, cache=cache), first)


def test_prompts_of_different_lengths_need_another_cache():
    model = gpt()
    with pytest.raises(ValueError, match="not WindowKVCache"):
        model.generate([[1], [2, 3]], 2, cache=cache_of(model, 6, 2, 2))


REFUSED = {"window 0": (1, 0, 1, 1, 1, 1), "sinks -1": (1, 4, -1, 1, 1, 1), "0": (1, 4, 1, 0, 1, 1)}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_sizes_are_refused(message):
    with pytest.raises(ValueError, match=message):
        WindowKVCache(*REFUSED[message])


def test_a_window_of_a_model_has_to_be_told_how_much_it_keeps_and_is_for_a_gpt():
    cache = WindowKVCache.of(gpt(num_kv_heads=2), 3, window=6, sinks=2)
    assert cache[0].keys.shape == (3, 2, 8, 2)
    with pytest.raises(TypeError, match=r"of\(\) missing 2 required keyword-only arguments: 'window' and 'sinks'"):
        WindowKVCache.of(gpt())
    with pytest.raises(TypeError, match=r"a cache is for an nn\.GPT, not Sequential"):
        WindowKVCache.of(nn.Sequential(nn.Linear(2, 2)), window=6, sinks=2)


def test_keys_of_another_shape_leave_it_as_it_was():
    layer = WindowLayer(1, 2, 3, 1, 4)
    good = np.ones((1, 2, 1, 4), np.float32)
    layer.attend(good, good, good)
    before = layer.length, layer.keys.tobytes()
    for key, value in ((good[:, :1], good[:, :1]), (good, good[..., :2]), (np.ones((2, 2, 1, 4), np.float32),) * 2):
        with pytest.raises(ValueError, match="shape"):
            layer.attend(good, key, value)
        assert (layer.length, layer.keys.tobytes()) == before
