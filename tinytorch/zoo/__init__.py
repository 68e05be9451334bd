"""Trained models that ship with the book: weights, cards, and the commands that trained them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.zoo.files import read_card, read_state
from tinytorch.zoo.models import anomaly_autoencoder, char_gpt, reference_cnn
from tinytorch.zoo.recipes import RECIPES, recipe

__all__ = ["RECIPES", "anomaly_autoencoder", "char_gpt", "load", "read_card", "recipe", "reference_cnn"]


def load(name: str) -> Any:
    """Return a trained model, "reference_cnn", "char_gpt" or "anomaly_autoencoder", in evaluation mode.

    Raises
    ------
    KeyError
        If there is no model of this name: lists the names.
    DataError
        If its file is missing or damaged: says what to run.
    """
    model = recipe(name).build(np.random.default_rng(0))
    model.load_state_dict(read_state(name))
    return model.eval()
