"""The models that chapters make smaller or faster."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tinytorch import nn
from tinytorch.data.text import VOCABULARY


def reference_cnn(rng: np.random.Generator | None = None) -> nn.Sequential:
    """Three times convolution, batch norm, ReLU and pooling, then two linear layers: (N, 1, 28, 28) -> (N, 10)."""
    layers: list[nn.Module] = []
    for c_in, c_out in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1, rng=rng), nn.BatchNorm2d(c_out), nn.ReLU(), nn.MaxPool2d(2)]
    head = [nn.Flatten(), nn.Linear(64 * 3 * 3, 128, rng=rng), nn.ReLU(), nn.Linear(128, 10, rng=rng)]
    return nn.Sequential(*layers, *head)


def char_gpt(rng: np.random.Generator | None = None) -> nn.GPT:
    """Build a GPT over the characters of `tinytorch.data.text.VOCABULARY`, with a context of 256 of them."""
    return nn.GPT(len(VOCABULARY), embed_dim=128, num_layers=4, num_heads=4, max_seq_len=256, rng=rng)


def anomaly_autoencoder(rng: np.random.Generator | None = None) -> nn.Sequential:
    """Four linear layers that draw an image again from 16 numbers: (N, 1, 28, 28) -> (N, 784)."""
    sizes = (28 * 28, 128, 16, 128, 28 * 28)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, rng=rng), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
