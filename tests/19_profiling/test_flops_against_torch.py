"""The same models in PyTorch, counted by its `FlopCounterMode`: equal, operation by operation, but for what is listed.

What torch does not count, and we do; each has a test here:

* everything that is no product: biases, normalization, activations, pooling, losses, steps of optimizers. Its `addmm`
  and `convolution` stand for their products alone. So 2 `macs` are compared, and `flops` less 2 `macs` are the rest;
* attention on a CPU. Its kernel there has no formula in `FlopCounterMode`, which passes over it without a word. With
  `SDPBackend.MATH` it is made of `bmm`s, and they agree.

What torch counts, and we do not: the formula of its flash kernels (on GPUs) has five products in the derivative where
four are needed, because the kernel computes the scores once more.

What both count: 2 FLOPs for a MAC, the zeros of a convolution's padding, the positions that a causal mask hides. What
neither does: a gradient that nobody needs, such as that of the first layer's input.
"""

from collections import Counter

import numpy as np
import pytest

from tinytorch import Tensor, nn
from tinytorch.nn.functional import cross_entropy
from tinytorch.profiling.flops.counter import FLOPCounter
from tinytorch.zoo import char_gpt, reference_cnn

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch==2.13.0")
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.nn.functional import cross_entropy as torch_cross_entropy  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count  # noqa: E402

from tests.bench import peers  # noqa: E402


def mlp() -> nn.Sequential:
    rng = np.random.default_rng(0)
    return nn.Sequential(nn.Linear(30, 20, rng=rng), nn.ReLU(), nn.Linear(20, 10, rng=rng))


def torch_mlp() -> "torch.nn.Sequential":
    return torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.ReLU(), torch.nn.Linear(20, 10))


def images() -> np.ndarray:
    return np.zeros((3, 1, 28, 28), np.float32)


def small_gpt() -> nn.GPT:
    return nn.GPT(11, 24, 2, 4, 16, rng=np.random.default_rng(0))


MODELS = {
    "MLP": (mlp, torch_mlp, lambda: np.zeros((7, 30), np.float32)),
    "reference CNN": (lambda: reference_cnn(np.random.default_rng(0)), peers.reference_cnn, images),
    "GPT": (small_gpt, lambda: peers.GPT(11, 24, 2, 4, 16), lambda: np.zeros((3, 13), np.int64)),
}


def ours(model: nn.Module, x: np.ndarray, backward: bool) -> FLOPCounter:
    with FLOPCounter(model, strict=True) as counter:
        y = model(x if x.dtype == np.int64 else Tensor(x))
        if backward:
            cross_entropy(y, np.zeros(y.shape[:-1], np.int64)).backward()
    return counter


def theirs(model: "torch.nn.Module", x: np.ndarray, backward: bool) -> FlopCounterMode:
    with FlopCounterMode(display=False) as counter:
        y = model(torch.from_numpy(x))
        if backward:
            torch_cross_entropy(y.flatten(0, -2), torch.zeros(y.shape[:-1].numel(), dtype=torch.int64)).backward()
    return counter


def by_torch_name(counter: FlopCounterMode) -> dict[str, int]:
    return {str(name).removeprefix("aten."): n for name, n in counter.get_flop_counts()["Global"].items()}


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward and backward"])
@pytest.mark.parametrize("name", MODELS)
def test_products_agree_in_total_and_by_operation(name, backward):
    make, make_peer, inputs = MODELS[name]
    counter = ours(make(), inputs(), backward)
    with sdpa_kernel(SDPBackend.MATH):
        expected = theirs(make_peer(), inputs(), backward)
    assert 2 * counter.total.macs == expected.get_total_flops() > 0
    groups = [("Linear", {"addmm", "mm"}), ("Conv2d", {"convolution", "convolution_backward"}), ("Attention", {"bmm"})]
    found = {kind: sum(2 * n.macs for op, n in counter.by_operation().items() if kind in op) for kind, _ in groups}
    wanted = by_torch_name(expected)
    assert wanted.keys() <= set.union(*(names for _, names in groups))
    assert found == {kind: sum(wanted.get(op, 0) for op in names) for kind, names in groups}


@pytest.mark.parametrize("name", ["MLP", "reference CNN"])
def test_products_agree_by_module(name):
    make, make_peer, inputs = MODELS[name]
    found = {path: 2 * n.macs for path, n in ours(make(), inputs(), True).by_module().items() if n.macs}
    counts = theirs(make_peer(), inputs(), True).get_flop_counts()
    wanted = {path.removeprefix("Sequential").lstrip("."): sum(n.values()) for path, n in counts.items()}
    del wanted["Global"]
    assert found == wanted


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward and backward"])
def test_torch_passes_over_attention_on_a_cpu(backward):
    make, make_peer, inputs = MODELS["GPT"]
    counter = ours(make(), inputs(), backward)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        expected = theirs(make_peer(), inputs(), backward)
    attention = sum(n.macs for op, n in counter.by_operation().items() if "Attention" in op)
    assert 2 * (counter.total.macs - attention) == expected.get_total_flops()
    assert attention > 0


def test_the_formula_of_torchs_flash_kernels_has_one_product_more_in_the_derivative():
    shape = batch, heads, length, width = 3, 4, 13, 6
    counter = ours(small_gpt(), np.zeros((batch, length), np.int64), True)
    product = 2 * batch * heads * length**2 * width
    work = {name: 2 * n.macs for name, n in counter.by_operation().items() if "Attention" in name}
    assert work == {"SelfAttention": 2 * 2 * product, "SelfAttentionBackward": 2 * 4 * product}  # of two layers
    assert sdpa_flop_count(shape, shape, shape) == 2 * product
    assert sdpa_backward_flop_count(shape, shape, shape, shape) == 5 * product


def test_all_that_we_count_beyond_torch_is_listed():
    """`flops` less 2 `macs`, operation by operation, of the CNN's layers: nothing in it is a product."""
    counter = ours(reference_cnn(np.random.default_rng(0)), images(), True)
    rest = Counter({op: n.flops - 2 * n.macs for op, n in counter.by_operation().items()})
    n, pixels, channels = 3, (28 * 28, 14 * 14, 7 * 7), (16, 32, 64)
    maps = sum(p * c for p, c in zip(pixels, channels, strict=True)) * n
    pooled = sum((p // 4 if p > 49 else 9) * c for p, c in zip(pixels, channels, strict=True)) * n
    assert +rest == {
        "Conv2d": maps,  # biases
        "Conv2dBackward": maps,
        "Linear": n * (128 + 10),
        "LinearBackward": n * (128 + 10),
        "BatchNorm2d": 7 * maps + 12 * sum(channels),
        "BatchNorm2dBackward": 13 * maps + 2 * sum(channels),
        "ReLU": maps + n * 128,
        "ReLUBackward": 2 * (maps + n * 128),
        "MaxPool2d": 4 * pooled,
        "MaxPool2dBackward": 5 * pooled,
        "CrossEntropy": 4 * n * 10 + 3 * n + 1,
        "CrossEntropyBackward": 4 * n * 10 + n + 1,
    }


def test_the_shipped_gpt_agrees_too():
    ids = np.zeros((1, 256), np.int64)
    model = char_gpt(np.random.default_rng(0))
    peer = peers.GPT(model.vocab_size, model.embed_dim, model.num_layers, model.num_heads, model.max_seq_len)
    with sdpa_kernel(SDPBackend.MATH):
        expected = theirs(peer, ids, backward=True).get_total_flops()
    assert 2 * ours(model, ids, backward=True).total.macs == expected
