"""The zoo's models, built once more in PyTorch with the same weights: equal loss and equal gradients."""

import numpy as np
import pytest

from tinytorch import Tensor, nn
from tinytorch.nn.functional import cross_entropy
from tinytorch.zoo import reference_cnn

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch==2.13.0")


def torch_cnn() -> "torch.nn.Module":
    layers = []
    for c_in, c_out in ((1, 16), (16, 32), (32, 64)):
        layers += [
            torch.nn.Conv2d(c_in, c_out, 3, padding=1),
            torch.nn.BatchNorm2d(c_out),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
        ]
    head = [torch.nn.Flatten(), torch.nn.Linear(576, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)]
    return torch.nn.Sequential(*layers, *head)


class TorchBlock(torch.nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.attention = torch.nn.ModuleDict(
            {"in_proj": torch.nn.Linear(width, 3 * width), "out_proj": torch.nn.Linear(width, width)}
        )
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(width, 4 * width), torch.nn.GELU(approximate="tanh"), torch.nn.Linear(4 * width, width)
        )

    def forward(self, x: "torch.Tensor") -> "torch.Tensor":
        b, t, c = x.shape
        qkv = self.attention["in_proj"](self.norm1(x)).split(c, dim=2)
        q, k, v = (part.view(b, t, self.heads, c // self.heads).transpose(1, 2) for part in qkv)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention["out_proj"](y.transpose(1, 2).reshape(b, t, c))
        return x + self.mlp(self.norm2(x))


class TorchGPT(torch.nn.Module):
    def __init__(self, vocab_size: int, width: int, layers: int, heads: int, max_seq_len: int) -> None:
        super().__init__()
        self.token_embedding = torch.nn.Embedding(vocab_size, width)
        self.position_embedding = torch.nn.Embedding(max_seq_len, width)
        self.blocks = torch.nn.ModuleList(TorchBlock(width, heads) for _ in range(layers))
        self.norm = torch.nn.LayerNorm(width)
        self.head = torch.nn.Linear(width, vocab_size, bias=False)

    def forward(self, ids: "torch.Tensor") -> "torch.Tensor":
        x = self.token_embedding(ids) + self.position_embedding(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def compare(ours: nn.Module, theirs: "torch.nn.Module", inputs: np.ndarray, targets: np.ndarray) -> None:
    """One training step's loss, gradients and buffers."""
    state = {name: torch.from_numpy(a.copy()) for name, a in ours.state_dict().items()}
    names = theirs.load_state_dict(state, strict=False)
    assert not names.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in names.missing_keys)

    loss = cross_entropy(ours(Tensor(inputs)), targets)
    scores = theirs(torch.from_numpy(inputs))
    expected = torch.nn.functional.cross_entropy(scores.flatten(0, -2), torch.from_numpy(targets).flatten())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    wanted = dict(theirs.named_parameters())
    found = dict(ours.named_parameters())
    assert found.keys() == wanted.keys()
    for name, p in found.items():
        grad = wanted[name].grad.numpy()
        np.testing.assert_allclose(
            p.grad.data, grad, rtol=1e-3, atol=2e-5 * max(np.abs(grad).max(), 1e-2), err_msg=name
        )
    after = theirs.state_dict()
    for name, array in ours.state_dict().items():
        np.testing.assert_allclose(array, after[name].numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_reference_cnn_equals_torch():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, 1, 28, 28), dtype=np.float32)
    compare(reference_cnn(rng), torch_cnn(), images, rng.integers(0, 10, 4))


def test_a_small_gpt_equals_torch():
    rng = np.random.default_rng(0)
    sizes = (11, 24, 3, 4, 16)
    model = nn.GPT(*sizes, rng=rng)
    for p in model.parameters():  # larger than at the start, so that no gradient is all but zero
        p.data += 0.1 * rng.standard_normal(p.shape, dtype=np.float32)
    compare(model, TorchGPT(*sizes), rng.integers(0, 11, (2, 13)), rng.integers(0, 11, (2, 13)))
