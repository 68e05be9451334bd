"""Attention without its table of scores: the same numbers as the loops, in memory that grows with the length only."""

import math
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import Tensor, backend, nn, no_grad, set_num_threads
from tinytorch.kernels.attention import attention, attention_grad
from tinytorch.kernels.backend import BACKENDS
from tinytorch.nn.functional import scaled_dot_product_attention
from tinytorch.ops.attention import SelfAttention

seeds = st.integers(0, 2**32 - 1)
GUARD = np.float32(-7e37)
ORDERS = [(0, 1, 2, 3), (0, 2, 1, 3), (2, 0, 1, 3), (0, 1, 3, 2), (3, 2, 1, 0)]  # of the axes in memory


def scattered(x: np.ndarray, order: tuple[int, ...], step: int, flipped: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the elements of x as a view of a buffer with guards before, behind and between them, and the buffer.

    The `flipped` axes run backwards in memory.
    """
    shape = [x.shape[axis] for axis in order]
    memory = np.full(130 + 2 * math.prod(shape[:-1]) * (shape[-1] * step + 3), GUARD, x.dtype)
    rows = memory[65 : 65 + math.prod(shape[:-1]) * (shape[-1] * step + 3)].reshape(*shape[:-1], shape[-1] * step + 3)
    view = rows[..., : shape[-1] * step : step].transpose(np.argsort(order))
    view = np.flip(view, flipped)
    view[...] = x
    return view, memory


@dataclass(frozen=True)
class Problem:
    """Sizes of queries, keys, values; `size` makes scores large, and the softmax hard."""

    batch: int
    heads: int
    queries: int
    keys: int
    depth: int
    width: int
    size: float
    is_causal: bool
    seed: int

    def arrays(self, dtype: type = np.float32) -> list[np.ndarray]:
        """Return queries, keys, values and a gradient of the result: numbers that float32 has too."""
        rng, lead = np.random.default_rng(self.seed), (self.batch, self.heads)
        shapes = (
            (self.queries, self.depth),
            (self.keys, self.depth),
            (self.keys, self.width),
            (self.queries, self.width),
        )
        q, k, v, grad = (rng.standard_normal((*lead, *shape), np.float32) for shape in shapes)
        k *= np.linspace(0.1, 1.0, self.keys, dtype=np.float32)[:, None]  # the largest score often comes late
        return [x.astype(dtype) for x in (q * np.float32(self.size), k, v, grad)]


lengths = st.sampled_from([0, 1, 2, 5, 7, 8, 9, 31, 33, 64, 70])
widths = st.sampled_from([1, 3, 8, 16, 32, 33, 64])
layouts = st.tuples(st.sampled_from(ORDERS), st.integers(1, 2), st.lists(st.integers(0, 3), max_size=4, unique=True))
problems = st.builds(
    lambda earlier, **sizes: Problem(keys=max(1, sizes["queries"] + earlier), **sizes),
    earlier=st.sampled_from([0, 1, 3, 300]),
    batch=st.integers(0, 2),
    heads=st.integers(1, 2),
    queries=lengths,
    depth=widths,
    width=widths,
    size=st.sampled_from([1.0, 10.0]),
    is_causal=st.booleans(),
    seed=seeds,
)


def both_ways(arrays, is_causal, forward, backward):
    """Return the result under one backend and the gradients under another one."""
    q, k, v, grad = arrays
    with backend(forward):
        out, kept = attention(q, k, v, is_causal)
    grads = [np.full(x.shape, np.nan, x.dtype) for x in (q, k, v)]
    with backend(backward):
        attention_grad(grad, q, k, v, out, kept, is_causal, *grads)
    return out, *grads


def assert_close(found, expected, tolerance, name):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max(initial=1.0), err_msg=name)


@settings(max_examples=150)
@given(problem=problems, data=st.data())
def test_every_backend_computes_what_the_loops_compute(problem, data):
    """Whatever the lengths, and wherever the arguments lie; also where the gradients are another backend's."""
    arrays, is_causal = problem.arrays(np.float64), problem.is_causal
    small = arrays[0].size * problem.keys < 4000  # for larger ones NumPy, in float64, stands in for the loops
    expected = both_ways(arrays, is_causal, *(["naive"] * 2 if small else ["numpy"] * 2))
    assert_close(both_ways(arrays, is_causal, "numpy", "numpy"), expected, 1e-9, "numpy, float64")
    single = problem.arrays()
    for forward, backward in ((a, b) for a in BACKENDS[0 if small else 1 :] for b in BACKENDS[0 if small else 1 :]):
        drawn = data.draw(layouts)
        laid = [scattered(x, *drawn) for x in single]
        found = both_ways([view for view, _ in laid], is_causal, forward, backward)
        tolerance = 4e-5 * problem.size  # large scores have large rounding errors
        assert_close(found, expected, tolerance, f"{forward}, {backward}")
        for (view, memory), before in zip(laid, single, strict=True):
            np.testing.assert_array_equal(view, before)
            assert (memory == GUARD).sum() == memory.size - view.size


@settings(max_examples=60)
@given(problem=problems, layout=layouts)
def test_results_are_written_where_they_are_wanted_and_nowhere_else(problem, layout, guarded_allocations):
    (q, k, v, grad), is_causal = problem.arrays(), problem.is_causal
    out, kept = attention(q, k, v, is_causal)
    targets = [scattered(np.zeros_like(x), *layout) for x in (q, k, v)]
    plain = [np.empty_like(x) for x in (q, k, v)]
    attention_grad(grad, q, k, v, out, kept, is_causal, *plain)
    with guarded_allocations():
        np.testing.assert_array_equal(attention(q, k, v, is_causal)[0], out)
        attention_grad(grad, q, k, v, out, kept, is_causal, *(view for view, _ in targets))
    for (view, memory), wanted in zip(targets, plain, strict=True):
        np.testing.assert_array_equal(view, wanted)
        assert (memory == GUARD).sum() == memory.size - view.size


@settings(max_examples=60)
@given(problem=problems)
def test_results_do_not_depend_on_the_number_of_threads(problem):
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        try:
            found = both_ways(problem.arrays(), problem.is_causal, "numba", "numba")
        finally:
            set_num_threads(1)
        results.append([r.tobytes() for r in found])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("queries", [1, 5, 40])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_query_does_not_see_what_stands_behind_it(queries, bad):
    """A later key, of whatever numbers, changes no bit; nor does a value more than a tile further on."""
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 1, 2, 100, 32), np.float32)
    q = q[:, :, -queries:]
    k_bad, v_bad = k.copy(), v.copy()
    k_bad[:, :, -1] = bad
    clean, spoilt = attention(q, k, v, True)[0], attention(q, k_bad, v_bad, True)[0]
    np.testing.assert_array_equal(spoilt[:, :, :-1], clean[:, :, :-1])
    assert np.isnan(spoilt[:, :, -1]).all()


@pytest.mark.parametrize("queries", [2, 40])
def test_scores_of_minus_infinity_weigh_nothing_wherever_they_stand(queries):
    """Also if all of the first keys have such: the largest score so far is then none."""
    rng = np.random.default_rng(0)
    q, k, v = np.abs(rng.standard_normal((3, 1, 1, 300, 32), np.float32))
    k[:, :, :200] = -np.inf
    out, log_sum = attention(q[:, :, :queries], k, v, False)
    expected, expected_sum = attention(q[:, :, :queries], k[:, :, 200:], v[:, :, 200:], False)
    np.testing.assert_allclose(out, expected, rtol=1e-5)
    np.testing.assert_allclose(log_sum, expected_sum, rtol=1e-5)


@pytest.mark.parametrize("queries", [2, 40])
def test_enormous_scores_choose_one_key(queries):
    """What the largest one is rounded to when it is taken away must not become an exponent."""
    q, k = np.zeros((1, 1, queries, 32), np.float32), np.zeros((1, 1, 300, 32), np.float32)
    q[..., 0], k[0, 0, :, 0] = 1e6, np.arange(300) * 1e5 + 1 / 3
    v = np.random.default_rng(0).standard_normal((1, 1, 300, 32), np.float32)
    out, _ = attention(q, k, v, False)
    np.testing.assert_array_equal(out, np.broadcast_to(v[:, :, -1:], out.shape))


def test_no_keys_are_refused():
    for name in BACKENDS[1:]:
        with backend(name), pytest.raises(ValueError, match=r"key|zero-size"):
            attention(np.ones((1, 1, 1, 4), np.float32), *np.ones((2, 1, 1, 0, 4), np.float32), False)


def peak_bytes(length: int) -> int:
    """Bytes of arrays that one forward and backward pass of 1 head allocates at most."""
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 1, length, 32), np.float32)
    tracemalloc.start()
    both_ways((q, k, v, v), True, "numba", "numba")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_grows_with_the_length_and_not_with_its_square():
    first, second, third = (peak_bytes(length) for length in (512, 1024, 2048))
    assert third - second == pytest.approx(2 * (second - first), rel=0.05)
    assert third < 2048 * 2048  # a quarter of the bytes of one table of scores


def resident_peak() -> int:
    """The most memory that the process had since `clear_refs` was written, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells")
def test_compiled_code_does_not_allocate_a_table_of_scores_either():
    """tracemalloc does not see what it allocates. 8192 queries and keys would make a table of 256 MiB."""
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 1, 8192, 32), np.float32)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = resident_peak()
    both_ways((q, k, v, v), True, "numba", "numba")
    assert resident_peak() - before < 32 << 20


def test_the_result_of_all_heads_lies_side_by_side():
    """So that joining them for the next layer copies nothing."""
    q = np.ones((2, 3, 10, 32), np.float32)
    for queries in (q, q[:, :, :1]):
        out, _ = attention(queries, q, q, True)
        assert out.transpose(0, 2, 1, 3).flags.c_contiguous


@settings(max_examples=20)
@given(
    batch=st.integers(1, 3), length=st.integers(1, 40), heads=st.integers(1, 3), depth=st.integers(1, 33), seed=seeds
)
def test_self_attention_is_attention_of_its_three_parts(batch, length, heads, depth, seed):
    """Result and gradient, for each backend, equal those of queries, keys and values taken apart."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, length, 3 * heads * depth), np.float32)
    weights = rng.standard_normal((batch, length, heads * depth), np.float32)
    for name in BACKENDS[1:]:
        with backend(name):
            whole, parts = Tensor(x, requires_grad=True), Tensor(x, requires_grad=True)
            y = SelfAttention.apply(whole, heads)
            q, k, v = (part for part in parts.reshape(batch, length, 3, heads, depth).permute(2, 0, 3, 1, 4))
            z = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(weights.shape)
            y.backward(weights)
            z.backward(weights)
        np.testing.assert_allclose(y.data, z.data, atol=1e-6)
        np.testing.assert_allclose(whole.grad.data, parts.grad.data, atol=1e-5)


def test_a_model_generates_the_same_tokens_under_every_backend():
    model = nn.GPT(11, 16, 2, 2, max_seq_len=40, rng=np.random.default_rng(0))
    texts = []
    for name in BACKENDS:
        with backend(name), no_grad():
            texts.append(
                model.generate([1, 2, 3], 3 if name == "naive" else 30, rng=np.random.default_rng(1))[:6].tolist()
            )
    assert texts[0] == texts[1] == texts[2]
