"""What the chapter has its reader derive by hand is what the package does."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import solutions
from tinytorch import nn
from tinytorch.caching import PagedKVCache, PagePool, Server, shape_of, users_that_fit
from tinytorch.kernels.attention import causal_mask
from tinytorch.nn.generation import Sampling

solved = partial(solutions.solved, "18_caching")


def gpt() -> nn.GPT:
    return nn.GPT(5, 8, 2, 2, 20, rng=np.random.default_rng(0))


@pytest.mark.parametrize(("prompt", "new"), [(1, 8), (5, 3), (4, 1)])
def test_as_many_positions_are_computed_as_the_reader_counts(prompt, new):
    for use_cache, expected in zip((True, False), solved("computed")(prompt, new), strict=True):
        model, fed = gpt(), []
        forward = model.forward
        model.forward = lambda ids, *rest, fed=fed, forward=forward: fed.append(ids.shape[1]) or forward(ids, *rest)
        model.generate([1] * prompt, new, top_k=1, use_cache=use_cache)
        assert sum(fed) == expected


@given(st.integers(1, 6), st.integers(0, 6))
def test_the_reader_s_mask_and_positions_are_the_package_s(queries, past):
    assert solved("hidden")(queries, past + queries) == causal_mask(queries, past + queries).astype(int).tolist()
    assert solved("positions_of")(queries, past) == list(range(past, past + queries))


def test_each_user_s_cache_holds_what_the_reader_says():
    requests = (("ann", 3), ("bob", 2), ("ann", 1), ("bob", 4))
    model, caches = gpt(), {"ann": nn.KVCache.of(gpt()), "bob": nn.KVCache.of(gpt())}
    for user, tokens in requests:
        model.generate([1] * tokens, 1, cache=caches[user])
    assert {user: cache.length for user, cache in caches.items()} == solved("held")(requests)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.floats(0.05, 1))
def test_top_p_keeps_as_many_as_the_reader_says(weights, p):
    probabilities = np.sort(np.array(weights, float))[::-1] / sum(weights)
    kept = np.count_nonzero(Sampling(top_p=p).probabilities(np.log(probabilities)))
    if np.abs(np.cumsum(probabilities) - p).min() > 1e-9:  # else rounding decides
        assert solved("kept_by_top_p")(tuple(probabilities.tolist()), p) == kept


def test_a_step_takes_no_less_than_reading_weights_and_caches():
    model = gpt()
    cache = shape_of(model).kv_cache_bytes(20, itemsize=4)
    assert solved("least_seconds")(1000, cache, 3, 10) == (1000 + nn.KVCache.of(model, 3).nbytes) / 10


def test_as_many_users_fit_without_pages_as_the_reader_says():
    server = Server(tokens=100, max_seq_len=9, page_size=None)
    fit = users_that_fit(server, np.full(50, 3))
    assert solved("users_beside")(130, 30, 1, 9) == fit


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.sampled_from([1, 4, 16]))
def test_pages_are_used_as_the_reader_says(lengths, page_size):
    pool = PagePool(100, page_size, 1, 1, 1)
    for length in lengths:
        new = np.ones((1, 1, length, 1), np.float32)
        PagedKVCache(pool).update(0, new, new)
    room = (100 - pool.free_pages) * page_size
    assert solved("used")(tuple(lengths), page_size) == pytest.approx(sum(lengths) / room)


@given(st.floats(0, 1), st.integers(1, 5), st.integers(0, 99))
def test_the_reader_s_tokens_per_pass_are_the_mean(a, n, seed):
    rng = np.random.default_rng(seed)
    right = rng.random((20_000, n)) < a
    tokens = 1 + np.cumprod(right, axis=1).sum(axis=1)
    assert solved("tokens_per_pass")(a, n) == pytest.approx(tokens.mean(), abs=0.08)
