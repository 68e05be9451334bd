"""The numbers that the cards state, always over the whole test data."""

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


@no_grad()
def anomaly_auc(model: nn.Module, data: Images, normal: int, batch_size: int = 250) -> float:
    """Return how often an image of another class is drawn worse than one of class `normal`: see `auc`."""
    pieces = (data.images[i : i + batch_size] for i in range(0, len(data.images), batch_size))
    errors = np.concatenate([squared_errors(model(Tensor(piece)).data, piece) for piece in pieces])
    return auc(errors[data.labels != normal], errors[data.labels == normal])


def squared_errors(drawn: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return the mean squared error of each image (N,), of what was drawn (N, pixels) against images (N, ...)."""
    difference = drawn.astype(np.float64) - images.reshape(len(images), -1)
    return np.asarray((difference**2).mean(axis=1))


def auc(high: np.ndarray, low: np.ndarray) -> float:
    """Return the probability that one of `high` is above one of `low`, half of it where they are equal.

    This is the area under the curve of hits against false alarms. Source: Hanley and McNeil, "The meaning and use of
    the area under a receiver operating characteristic (ROC) curve", Radiology 143 (1982).
    """
    low = np.sort(low)
    below = np.searchsorted(low, high, "left").sum() + np.searchsorted(low, high, "right").sum()
    return float(below) / (2 * len(high) * len(low))
