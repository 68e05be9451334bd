"""The zoo's models, built once more in PyTorch with the same weights: equal loss and equal gradients."""

import numpy as np
import pytest

from tinytorch import Tensor, nn
from tinytorch.nn.functional import cross_entropy
from tinytorch.zoo import reference_cnn

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch==2.13.0")
from tests.bench import peers  # noqa: E402


def compare(ours: nn.Module, theirs: "torch.nn.Module", inputs: np.ndarray, targets: np.ndarray) -> None:
    """One training step's loss, gradients and buffers."""
    peers.copy_state(ours.state_dict(), theirs)
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
    compare(reference_cnn(rng), peers.reference_cnn(), images, rng.integers(0, 10, 4))


def test_a_small_gpt_equals_torch():
    rng = np.random.default_rng(0)
    sizes = (11, 24, 3, 4, 16)
    model = nn.GPT(*sizes, rng=rng)
    for p in model.parameters():  # larger than at the start, so that no gradient is all but zero
        p.data += 0.1 * rng.standard_normal(p.shape, dtype=np.float32)
    compare(model, peers.GPT(*sizes), rng.integers(0, 11, (2, 13)), rng.integers(0, 11, (2, 13)))
