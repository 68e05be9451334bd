"""The study's models on disk: packed weights, and a card that says how the model is built."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch import nn
from tinytorch.zoo import files

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
_WEIGHTS = "weights"


def names() -> list[str]:
    """Return the names of the models that ship."""
    return sorted(path.stem for path in (FOLDER / _WEIGHTS).glob("*.json"))


def load(name: str) -> nn.Sequential:
    """Return a model of the study, that of seed 0, in evaluation mode; its zeros are ordinary weights.

    Raises
    ------
    KeyError
        If there is no model of this name: lists the names.
    DataError
        If its file is missing or damaged.
    """
    card = read_card(name)
    model = build(card["structure"])
    model.load_state_dict(files.read_state(name, FOLDER / _WEIGHTS))
    model.eval()
    return model


def read_card(name: str) -> dict[str, Any]:
    """Return the card of a model: how it was made and is built, and what it reaches. Errors as `load` has them."""
    if name not in names():
        raise KeyError(f"the study ships no model {name!r}; there are: {', '.join(names())}")
    return files.read_card(name, FOLDER / _WEIGHTS)


def save(name: str, model: nn.Sequential, card: dict[str, Any], folder: Path) -> Path:
    """Write a model and its card into the folder of weights below `folder`. Returns the path of the weights."""
    whole = card | {"parameters": model.num_parameters(), "structure": structure(model)}
    return files.save_model(name, model.state_dict(), whole, folder / _WEIGHTS)


def structure(model: nn.Sequential) -> dict[str, Any]:
    """Describe a model that is built as the reference CNN, but of other widths.

    Returns
    -------
    dict
        "filters": how many each convolution has. "linear": for each linear layer its inputs and outputs, with the rank
        between them where it is a pair of thin layers.
    """
    filters: list[int] = []
    linear: list[list[int]] = []
    before: nn.Module | None = None
    for _, layer in model.named_layers():
        if isinstance(layer, nn.Conv2d):
            filters.append(layer.out_channels)
        elif isinstance(layer, nn.Linear) and isinstance(before, nn.Linear):
            linear[-1].append(layer.out_features)
        elif isinstance(layer, nn.Linear):
            linear.append([layer.in_features, layer.out_features])
        before = layer
    return {"filters": filters, "linear": linear}


def build(described: dict[str, Any], rng: np.random.Generator | None = None) -> nn.Sequential:
    """Build a model, its weights random, from what `structure` says of it."""
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise([1, *described["filters"]]):
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1, rng=rng), nn.BatchNorm2d(c_out), nn.ReLU(), nn.MaxPool2d(2)]
    layers.append(nn.Flatten())
    for widths in described["linear"]:
        sizes = list(pairwise(widths))
        layers += [nn.Linear(*size, bias=size is sizes[-1], rng=rng) for size in sizes]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers[:-1])
