"""The cost formulas count what NumPy is really asked to multiply."""

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import backend, nn, no_grad
from tinytorch.kernels import attention, decoding
from tinytorch.nn.cost import forward_flops, score_bytes
from tinytorch.ops.attention import ScaledDotProductAttention


@pytest.fixture(autouse=True, scope="module")
def _numpy():
    with backend("numpy"):
        yield


class Watched(np.ndarray):
    """An array that counts the multiplications and additions of every matrix product it takes part in."""

    flops: ClassVar[dict[str, int]] = {}

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        plain = [x.view(np.ndarray) if isinstance(x, Watched) else x for x in inputs]
        if out is not None:
            kwargs["out"] = tuple(x.view(np.ndarray) if isinstance(x, Watched) else x for x in out)
        result = getattr(ufunc, method)(*plain, **kwargs)
        if ufunc is np.matmul:
            kind = "attention" if result.ndim == 4 else "weights"
            Watched.flops[kind] += 2 * result.size * plain[0].shape[-1]
        return result.view(Watched) if isinstance(result, np.ndarray) else result


def watched_flops(model: nn.GPT, length: int, past: int, batch_size: int) -> dict[str, int]:
    for parameter in model.parameters():
        parameter.data = parameter.data.view(Watched)
    original = ScaledDotProductAttention.forward

    def forward(ctx, q, k, v):  # a Tensor holds plain arrays: the products of activations are watched from here on
        return original(ctx, q.view(Watched), k.view(Watched), v.view(Watched))

    caches = model.empty_past_key_values(batch_size)
    with no_grad(), pytest.MonkeyPatch.context() as patch:
        if past:
            model(np.zeros((batch_size, past), np.int64), caches)
        Watched.flops = {"weights": 0, "attention": 0}
        patch.setattr(ScaledDotProductAttention, "forward", staticmethod(forward))
        model(np.zeros((batch_size, length), np.int64), caches)
    return Watched.flops


@settings(max_examples=25, deadline=None)
@given(
    kv_heads=st.integers(1, 3),
    sharing=st.integers(1, 3),
    head_dim=st.integers(1, 5),
    layers=st.integers(1, 3),
    length=st.integers(1, 9),
    past=st.integers(0, 7),
    batch_size=st.integers(1, 3),
)
def test_forward_flops_are_those_of_the_products_that_numpy_computes(
    kv_heads, sharing, head_dim, layers, length, past, batch_size
):
    heads = kv_heads * sharing
    model = nn.GPT(11, heads * head_dim, layers, heads, 16, np.random.default_rng(0), kv_heads)
    counted = watched_flops(model, length, past, batch_size)
    formula = forward_flops(model, length, past, batch_size)
    assert formula._asdict() == counted
    assert formula.total == sum(counted.values())


@pytest.mark.parametrize(("length", "past"), [(1, 0), (5, 0), (1, 9), (4, 3)])
def test_score_bytes_are_those_of_the_array_that_softmax_gets(length, past, monkeypatch):
    seen = []
    softmax = attention.softmax
    for module in (attention, decoding):
        monkeypatch.setattr(module, "softmax", lambda scores: seen.append(scores.nbytes) or softmax(scores))
    model = nn.GPT(11, 12, 1, 3, max_seq_len=16, rng=np.random.default_rng(0))
    caches = model.empty_past_key_values(2)
    with no_grad():
        if past:
            model(np.zeros((2, past), np.int64), caches)
        model(np.zeros((2, length), np.int64), caches)
    assert seen[-1] == score_bytes(model, length, past, batch_size=2)
