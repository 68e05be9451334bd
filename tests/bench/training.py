"""Training steps beside PyTorch eager: the same model, weights, batches and optimizer settings, one thread each.

A step is forward, loss, backward, clipping where the recipe clips, and the optimizer. Rows of run `training_cnn`
(`zoo.reference_cnn`, batches of 64 of the 10,000 shipped training images) and `training_gpt` (`zoo.char_gpt`, batches
of 16 x 256 characters):

* `ratio`: our time over PyTorch's, from interleaved pairs, with its aim;
* `epoch`, `epoch_torch` (CNN): seconds of one epoch of the 10,000 images, the medians of the same pairs, which take
  turns after each twelfth of an epoch;
* `step`, `step_torch` (GPT): milliseconds of one step, the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from tests.bench.turns import timer
from tinytorch import Tensor, data, optim, zoo
from tinytorch.nn.functional import cross_entropy
from tinytorch.profiling.timing.comparison import Comparison
from tinytorch.profiling.timing.statistics import Estimate

AIM = 1.0  # times PyTorch's time, with compiled kernels
TOLERANCE = 1e-4  # of the largest gradient in the model; float32 sums in another order differ by less

Batch = tuple[np.ndarray, np.ndarray]
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """What both sides train: our model, its peer, the batches and the optimizer's settings."""

    ours: Any
    peer: Any
    batches: list[Batch]
    settings: dict[str, Any]
    max_norm: float | None = None

    def loss(self, batch: Batch) -> Tensor:
        """Our loss, with its graph."""
        inputs, targets = batch
        return cross_entropy(self.ours(Tensor(inputs) if inputs.dtype.kind == "f" else inputs), targets)

    def peer_loss(self, batch: Batch) -> Any:
        """PyTorch's loss, with its graph."""
        import torch

        inputs, targets = (torch.from_numpy(array) for array in batch)
        return torch.nn.functional.cross_entropy(self.peer(inputs).flatten(0, -2), targets.flatten())

    def check(self) -> None:
        """Raise an AssertionError unless loss and all gradients of the first batch agree; leaves no gradient behind."""
        ours, theirs = self.loss(self.batches[0]), self.peer_loss(self.batches[0])
        ours.backward()
        theirs.backward()
        np.testing.assert_allclose(ours.item(), theirs.item(), rtol=1e-5)
        peer = dict(self.peer.named_parameters())
        largest = max(float(p.grad.abs().max()) for p in peer.values())
        for path, p in self.ours.named_parameters():
            error = np.abs(p.grad.data - peer.pop(path).grad.numpy()).max()
            if not error <= TOLERANCE * largest:
                raise AssertionError(f"the gradient of {path} differs from PyTorch's by {error}, largest is {largest}")
            p.grad = None
        assert not peer, f"parameters without a counterpart: {sorted(peer)}"

    def steps(self) -> tuple[Callable[[], None], Callable[[], None]]:
        """Return one training step of each side, as functions that go on where they stopped."""
        return self._our_step(cycle(self.batches)), self._peer_step(cycle(self.batches))

    def _our_step(self, batches: Iterator[Batch]) -> Callable[[], None]:
        optimizer = optim.AdamW(self.ours.parameters(), **self.settings)

        def step() -> None:
            loss = self.loss(next(batches))
            optimizer.zero_grad()
            loss.backward()
            if self.max_norm is not None:
                optim.clip_grad_norm_(optimizer.params, self.max_norm)
            optimizer.step()

        return step

    def _peer_step(self, batches: Iterator[Batch]) -> Callable[[], None]:
        import torch

        optimizer = torch.optim.AdamW(self.peer.parameters(), **self.settings)

        def step() -> None:
            loss = self.peer_loss(next(batches))
            optimizer.zero_grad()
            loss.backward()
            if self.max_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.peer.parameters(), self.max_norm)
            optimizer.step()

        return step


def cnn_task(rng: np.random.Generator) -> Task:
    """The reference CNN on one shuffled epoch of the shipped training images; a last, smaller batch is left out."""
    from tests.bench import peers

    images, labels, _ = data.fashion_mnist("train")
    chosen = [b for b in data.shuffled(len(images), 64, rng) if len(b) == 64]
    model, peer = zoo.reference_cnn(rng), peers.reference_cnn()
    peers.copy_state(model.state_dict(), peer)
    return Task(model, peer, [(images[b], labels[b]) for b in chosen], {"lr": 2e-3, "weight_decay": 0.01})


def gpt_task(rng: np.random.Generator) -> Task:
    """The character model on windows of the shipped plays."""
    from tests.bench import peers

    tokens = data.shakespeare("train").tokens
    model = zoo.char_gpt(rng)
    sizes = (model.vocab_size, model.embed_dim, model.num_layers, model.num_heads, model.max_seq_len)
    peer = peers.GPT(*sizes)
    peers.copy_state(model.state_dict(), peer)
    batches = [data.windows(tokens, 16, 256, rng) for _ in range(64)]
    settings = {"lr": 2e-3, "betas": (0.9, 0.99), "weight_decay": 0.1}
    return Task(model, peer, batches, settings, max_norm=1.0)


def verdict(ratio: Estimate, aim: float = AIM) -> str:
    """Say whether a ratio reached its aim: its whole interval must lie on one side."""
    return "reached" if ratio.high <= aim else "missed" if ratio.low > aim else "undecided"


def _rows(result: Comparison, name: str, what: str, unit: str, turns: float = 1.0) -> Rows:
    import torch

    peer = f"PyTorch {torch.__version__.partition('+')[0]}"
    factor = turns * {"s": 1.0, "ms": 1e3}[unit]
    aim = f"aim at most {AIM:g}: {verdict(result.ratio)}"
    return {
        "ratio": row(result.ratio, "x", f"Training {what}, time over {peer} eager's, one thread ({aim})"),
        name: row(result.seconds("ours").scaled(factor), unit, f"Training {what}, one thread"),
        f"{name}_torch": row(
            result.seconds("torch").scaled(factor), unit, f"Training {what} in {peer} eager, one thread"
        ),
    }


def row(estimate: Estimate, unit: str, what: str) -> dict[str, Any]:
    """Put an estimate into the form of `tinytorch.book.results`, to four digits."""
    value, low, high = (float(f"{x:.4g}") for x in (estimate.value, estimate.low, estimate.high))
    return {"value": value, "low": low, "high": high, "unit": unit, "what": what}


def training_cnn(rng: np.random.Generator, budget: float) -> Rows:
    """Measure the CNN's epoch. An AssertionError if the two sides do not compute the same."""
    task = cnn_task(rng)
    part = max(len(task.batches) // 12, 1)
    ours, theirs = (partial(_repeat, step, part) for step in task.steps())
    result = timer(rng, budget).compare({"torch": theirs, "ours": ours}, check=task.check)
    what = "epoch of the CNN on 10,000 images (batch 64)"
    return _rows(result, "epoch", what, "s", len(task.batches) / part)


def _repeat(step: Callable[[], None], times: int) -> None:
    for _ in range(times):
        step()


def training_gpt(rng: np.random.Generator, budget: float) -> Rows:
    """Measure the GPT's step. An AssertionError if the two sides do not compute the same."""
    task = gpt_task(rng)
    ours, theirs = task.steps()
    result = timer(rng, budget).compare({"torch": theirs, "ours": ours}, check=task.check)
    return _rows(result, "step", "step of the GPT (batch 16 x 256)", "ms")
