"""The task on text: how likely the next character is, in plays that the reference has not seen."""

from __future__ import annotations

import numpy as np

from tinytorch import data
from tinytorch.benchmarks.tinymlperf.graph import Spec
from tinytorch.benchmarks.tinymlperf.tasks.task import Split, Task
from tinytorch.kernels.softmax import log_softmax

LENGTH = 256


class LanguageModel(Task):
    """Score the next character at each of 256 positions of a play by Shakespeare."""

    model = "char_gpt"
    name, title = "language-model", "Language model (Shakespeare, character by character)"
    metric, unit, higher_is_better, allowed_loss = "loss", "nats/char", False, 0.03
    input = Spec("ids", "int64", ("N", "T"))
    output = Spec("scores", "float32", ("N", "T", len(data.text.VOCABULARY)))
    batch_size, hidden_size = 8, 128

    def public(self) -> Split:
        tokens = data.shakespeare("held-out").tokens.astype(np.int64)
        starts = np.arange(0, len(tokens) - LENGTH, LENGTH)
        return _windows(tokens, starts)

    def _draw(self, rng: np.random.Generator) -> Split:
        tokens = data.shakespeare("held-out").tokens.astype(np.int64)
        return _windows(tokens, rng.choice(len(tokens) - LENGTH, self.hidden_size, replace=False))

    def quality(self, outputs: np.ndarray, split: Split) -> float:
        found = np.take_along_axis(log_softmax(outputs), split.labels[..., None], axis=-1)
        return -float(found.mean(dtype=np.float64))


def _windows(tokens: np.ndarray, starts: np.ndarray) -> Split:
    places = starts[:, None] + np.arange(LENGTH)
    return Split(tokens[places], tokens[places + 1])
