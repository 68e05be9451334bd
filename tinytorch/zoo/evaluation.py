"""The two numbers that the cards state, always over the whole test data."""

from __future__ import annotations

import numpy as np

from tinytorch import nn
from tinytorch.autograd import no_grad
from tinytorch.data import Images, Text
from tinytorch.kernels.softmax import log_softmax
from tinytorch.tensor import Tensor


@no_grad()
def accuracy(model: nn.Module, data: Images, batch_size: int = 250) -> float:
    """Return the fraction of images whose largest score is that of their class."""
    correct = 0
    for start in range(0, len(data.images), batch_size):
        scores = model(Tensor(data.images[start : start + batch_size])).data
        correct += int((scores.argmax(axis=1) == data.labels[start : start + batch_size]).sum())
    return correct / len(data.images)


@no_grad()
def nats_per_token(model: nn.GPT, text: Text, batch_size: int = 16) -> float:
    """Return the mean of -log p(token) over a text, natural logarithm, every token but the first predicted once.

    The text is cut into windows of `max_seq_len` that do not overlap, so a window's first predictions have little to
    go by; the number would be lower with overlapping windows.
    """
    inputs, targets = text.tokens[:-1].astype(np.int64), text.tokens[1:].astype(np.int64)
    length = model.max_seq_len
    whole = len(inputs) // length * length
    rows = inputs[:whole].reshape(-1, length), targets[:whole].reshape(-1, length)
    pieces = [(rows[0][i : i + batch_size], rows[1][i : i + batch_size]) for i in range(0, len(rows[0]), batch_size)]
    if whole < len(inputs):
        pieces.append((inputs[None, whole:], targets[None, whole:]))
    total = 0.0
    for ids, wanted in pieces:
        log_p = log_softmax(model(ids).data)
        total -= float(np.take_along_axis(log_p, wanted[..., None], axis=-1).sum(dtype=np.float64))
    return total / len(targets)
