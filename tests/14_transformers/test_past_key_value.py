"""Remembered keys and values change nothing but the work."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import enlarge, random_gpt, remembered
from tinytorch import Tensor, nn, no_grad
from tinytorch.nn.functional import scaled_dot_product_attention

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=25)


def small_gpt(vocab=7, head_dim=3, num_layers=2, num_heads=2, max_seq_len=12, seed=0) -> nn.GPT:
    return random_gpt(vocab, head_dim * num_heads, num_layers, num_heads, max_seq_len, seed=seed)


@st.composite
def gpts(draw):
    sizes = (draw(st.integers(low, high)) for low, high in ((2, 9), (1, 5), (1, 3), (1, 3), (2, 12)))
    return small_gpt(*sizes, seed=draw(seeds))


@st.composite
def split_batches(draw, model):
    """Token numbers (B, T) and the lengths of the pieces in which they are fed."""
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, model.max_seq_len))
    cuts = draw(st.sets(st.integers(1, length - 1), max_size=4)) if length > 1 else set()
    edges = [0, *sorted(cuts), length]
    ids = np.random.default_rng(draw(seeds)).integers(0, model.vocab_size, (batch, length))
    return ids, list(itertools.pairwise(edges))


# Nothing changes but the work


@few
@given(model=gpts(), data=st.data())
def test_logits_with_the_cache_equal_those_without_at_every_position(model, data):
    ids, pieces = data.draw(split_batches(model))
    caches = model.empty_past_key_values(len(ids))
    with no_grad():
        whole = model(ids).data
        cached = np.concatenate([model(ids[:, a:b], caches).data for a, b in pieces], axis=1)
    assert np.abs(cached - whole).max() <= 1e-5
    assert {cache.length for cache in caches} == {ids.shape[1]}


@few
@given(seed=seeds, layer=st.sampled_from([nn.MultiHeadAttention, nn.TransformerBlock]), data=st.data())
def test_attention_and_block_alone_give_the_same_with_the_cache(seed, layer, data):
    batch, heads, head_dim, length = (data.draw(st.integers(1, n)) for n in (3, 3, 4, 9))
    cut = data.draw(st.integers(0, length))
    rng = np.random.default_rng(seed)
    module = enlarge(layer(heads * head_dim, heads, rng=rng), rng)
    x = rng.standard_normal((batch, length, heads * head_dim)).astype(np.float32)
    cache = nn.PastKeyValue(batch, heads, length + 2, head_dim)
    with no_grad():
        whole = module(Tensor(x)).data
        pieces = [module(Tensor(part), cache).data for part in (x[:, :cut], x[:, cut:]) if part.shape[1]]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=0, atol=1e-5)
    assert cache.length == length


@few
@given(model=gpts(), data=st.data())
def test_greedy_generation_gives_the_same_tokens_with_and_without_the_cache(model, data):
    ids, _ = data.draw(split_batches(model))
    new = data.draw(st.integers(0, model.max_seq_len - ids.shape[1]))
    with_cache, without = (model.generate(ids, new, top_k=1, use_cache=use) for use in (True, False))
    np.testing.assert_array_equal(with_cache, without)


def test_sampling_draws_the_same_tokens_with_and_without_the_cache():
    model = small_gpt(max_seq_len=40)
    first, second = (
        model.generate([1, 2], 38, temperature=1.5, use_cache=use, rng=np.random.default_rng(3))
        for use in (True, False)
    )
    np.testing.assert_array_equal(first, second)
    assert len(set(first.tolist())) > 2


@pytest.mark.parametrize(("prompt", "new"), [(1, 8), (3, 6), (5, 1), (4, 0)])
def test_the_cache_computes_each_position_once_instead_of_once_per_step(prompt, new):
    model = small_gpt(max_seq_len=12)
    counts = []
    block = model.blocks[-1]
    forward = block.forward
    block.forward = lambda x, past=None: counts.append(x.shape[1]) or forward(x, past)
    ids = np.zeros(prompt, int)
    model.generate(ids, new, top_k=1, use_cache=False)
    assert counts == list(range(prompt, prompt + new))
    counts.clear()
    model.generate(ids, new, top_k=1, use_cache=True)
    assert counts == ([prompt] + [1] * (new - 1) if new else [])
    assert sum(counts) == (prompt + new - 1 if new else 0)  # the last token is drawn and never fed


@few
@given(model=gpts(), data=st.data())
def test_a_later_token_never_changes_earlier_logits(model, data):
    ids, _ = data.draw(split_batches(model))
    at = data.draw(st.integers(0, ids.shape[1] - 1))
    changed = ids.copy()
    changed[:, at] = (changed[:, at] + 1) % model.vocab_size
    with no_grad():
        before, after = model(ids).data, model(changed).data
    np.testing.assert_array_equal(before[:, :at], after[:, :at])


def test_an_earlier_token_changes_every_later_score():
    """Else a cache that forgot everything would pass all the tests above."""
    model, ids = small_gpt(), np.zeros((1, 12), int)
    changed = ids.copy()
    changed[0, 3] = 1
    with no_grad():
        before, after = model(ids).data[0], model(changed).data[0]
    assert (before[3:] != after[3:]).all()


@few
@given(seed=seeds, sizes=st.tuples(*[st.integers(1, 4)] * 6), is_causal=st.booleans())
def test_attention_equals_loops(seed, sizes, is_causal):
    batch, heads, queries, earlier, width, width_v = sizes
    keys = queries + earlier - 1
    rng = np.random.default_rng(seed)
    q, k, v = (
        rng.standard_normal((batch, heads, *shape)) for shape in ((queries, width), (keys, width), (keys, width_v))
    )
    found = scaled_dot_product_attention(Tensor(q), Tensor(k), Tensor(v), is_causal).data
    for b, h, i in np.ndindex(batch, heads, queries):
        seen = range(keys - queries + i + 1) if is_causal else range(keys)
        scores = [math.fsum(q[b, h, i] * k[b, h, j]) / math.sqrt(width) for j in seen]
        weights = [math.exp(s - max(scores)) for s in scores]
        wanted = sum(w * v[b, h, j] for w, j in zip(weights, seen, strict=True)) / math.fsum(weights)
        np.testing.assert_allclose(found[b, h, i], wanted, atol=1e-12)


# What does not fit is refused, and leaves every layer's cache as it was


def filled(model: nn.GPT, batch: int = 2, length: int = 4) -> list[nn.PastKeyValue]:
    caches = model.empty_past_key_values(batch)
    with no_grad():
        model(np.ones((batch, length), int), caches)
    return caches


def replaced(caches: list[nn.PastKeyValue], at: int, shape: tuple[int, ...]) -> list[nn.PastKeyValue]:
    other = nn.PastKeyValue(*shape)
    other.length = min(caches[at].length, shape[2])
    return [other if i == at % len(caches) else cache for i, cache in enumerate(caches)]


# the model: 3 layers of 2 heads of 3, max_seq_len 12; the caches: 2 sequences, 4 positions held
MISFITS = {
    "full": (lambda c: c, (2, 9), r"\(2, 2, 12, 3\).*4 of 12.*\(2, 2, 9, 3\)"),
    "other batch size": (lambda c: c, (3, 1), r"\(3, 2, 1, 3\).*\(2, 2, 12, 3\)"),
    "other heads in the first layer": (
        lambda c: replaced(c, 0, (2, 3, 12, 3)),
        (2, 1),
        r"\(2, 2, 1, 3\).*\(2, 3, 12, 3\)",
    ),
    "other heads in the last layer": (
        lambda c: replaced(c, -1, (2, 3, 12, 3)),
        (2, 1),
        r"\(2, 2, 1, 3\).*\(2, 3, 12, 3\)",
    ),
    "other width in the last layer": (
        lambda c: replaced(c, -1, (2, 2, 12, 4)),
        (2, 1),
        r"\(2, 2, 1, 3\).*\(2, 2, 12, 4\)",
    ),
    "other batch in the last layer": (
        lambda c: replaced(c, -1, (1, 2, 12, 3)),
        (2, 1),
        r"\(2, 2, 1, 3\).*\(1, 2, 12, 3\)",
    ),
    "last layer full": (lambda c: replaced(c, -1, (2, 2, 4, 3)), (2, 1), r"\(2, 2, 4, 3\).*4 of 4.*\(2, 2, 1, 3\)"),
    "longer than the model": (lambda c: [replaced(c, i, (2, 2, 99, 3))[i] for i in range(3)], (2, 9), r"4 \+ 9.*12"),
    "other lengths": (lambda c: [*c[:-1], nn.PastKeyValue(2, 2, 12, 3)], (2, 1), r"\[4, 4, 0\]"),
    "a layer too few": (lambda c: c[:-1], (2, 1), r"3 layers.*\[4, 4\]"),
    "a layer too many": (lambda c: [*c, c[0]], (2, 1), r"3 layers.*\[4, 4, 4, 4\]"),
    "none": (lambda c: [], (2, 1), r"3 layers.*\[\]"),
    "one cache for every layer": (lambda c: [c[0]] * 3, (2, 1), "3 layers"),
}


@pytest.mark.parametrize(("change", "shape", "message"), MISFITS.values(), ids=MISFITS)
def test_a_cache_that_does_not_fit_is_refused_and_stays_as_it_was(change, shape, message):
    model = small_gpt(num_layers=3)
    caches = change(filled(model))
    before = remembered(caches)
    with no_grad(), pytest.raises(ValueError, match=message):
        model(np.ones(shape, int), caches)
    assert remembered(caches) == before


@pytest.mark.parametrize(("ids", "error"), [([[1, 7]] * 2, IndexError), ([[0.5]] * 2, TypeError), ([1, 2], ValueError)])
def test_ids_that_are_refused_leave_the_caches_as_they_were(ids, error):
    model = small_gpt()
    caches = filled(model)
    before = remembered(caches)
    with no_grad(), pytest.raises(error):
        model(np.array(ids), caches)
    assert remembered(caches) == before


@pytest.mark.parametrize("frozen", [0, 1], ids=["all trained", "first block and embeddings frozen"])
def test_no_gradient_flows_into_a_cache_and_trying_leaves_it_as_it_was(frozen):
    model = small_gpt()
    caches = filled(model)
    before = remembered(caches)
    if frozen:
        for module in (model.token_embedding, model.position_embedding, model.blocks[0]):
            for p in module.parameters():
                p.requires_grad = False
    with pytest.raises(RuntimeError, match="no_grad"):
        model(np.ones((2, 1), int), caches)
    assert remembered(caches) == before


ALONE = {
    "full": ((2, 2, 9, 3), (2, 2, 9, 3), r"\(2, 2, 12, 3\).*\(2, 2, 9, 3\)"),
    "other heads": ((2, 3, 1, 3), (2, 3, 1, 3), r"\(2, 3, 1, 3\).*\(2, 2, 12, 3\)"),
    "values unlike keys": ((2, 2, 1, 3), (2, 2, 2, 3), r"\(2, 2, 1, 3\).*\(2, 2, 2, 3\)"),
    "three axes": ((2, 2, 3), (2, 2, 3), r"\(2, 2, 3\).*\(2, 2, 12, 3\)"),
}


@pytest.mark.parametrize(("key", "value", "message"), ALONE.values(), ids=ALONE)
def test_append_refuses_what_does_not_fit_and_stays_as_it_was(key, value, message):
    cache = filled(small_gpt())[0]
    before = remembered([cache])
    with pytest.raises(ValueError, match=message):
        cache.append(np.ones(key), np.ones(value))
    assert remembered([cache]) == before


def test_a_cache_allocates_once_and_reset_forgets():
    cache = nn.PastKeyValue(2, 3, 8, 4)
    assert cache.shape == (2, 3, 8, 4)
    assert cache.nbytes == 2 * 2 * 3 * 8 * 4 * 4
    key, value = np.random.default_rng(0).standard_normal((2, 2, 3, 5, 4)).astype(np.float32)
    for _ in range(3):
        keys, values = cache.append(key, value)
        assert np.shares_memory(keys, cache.keys)
        np.testing.assert_array_equal(keys, key)
        np.testing.assert_array_equal(values, value)
        cache.reset()
        assert cache.length == 0
    with pytest.raises(ValueError, match=r"\(1, 0, 2, 3\)"):
        nn.PastKeyValue(1, 0, 2, 3)
