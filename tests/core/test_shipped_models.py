"""The shipped weights, evaluated once more on the whole test data: a card is never better than its file."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch import data, zoo
from tinytorch.zoo.evaluation import accuracy, anomaly_auc, auc, nats_per_token


def test_shipped_cnn_reaches_its_bar_and_what_its_card_says():
    found = accuracy(zoo.load("reference_cnn"), data.fashion_mnist("test"))
    row = zoo.read_card("reference_cnn")["rows"]["accuracy"]
    assert row["unit"] == "%"
    assert found >= 0.923
    assert found == pytest.approx(row["value"] / 100, abs=0.0005)  # another BLAS may turn a close call or two


def test_shipped_gpt_reaches_its_bar_and_what_its_card_says():
    found = nats_per_token(zoo.load("char_gpt"), data.shakespeare("held-out"))
    row = zoo.read_card("char_gpt")["rows"]["loss"]
    assert row["unit"] == "nats/char"
    assert found <= 1.70
    assert found == pytest.approx(row["value"], abs=0.002)


def test_shipped_autoencoder_reaches_its_bar_and_what_its_card_says():
    test = data.fashion_mnist("test")
    found = anomaly_auc(zoo.load("anomaly_autoencoder"), test, test.classes.index("sneaker"))
    row = zoo.read_card("anomaly_autoencoder")["rows"]["AUC"]
    assert found >= 0.98
    assert found == pytest.approx(row["value"], abs=0.001)


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_auc_is_the_share_of_pairs_in_the_right_order(high, low):
    pairs = [(a > b) + 0.5 * (a == b) for a in high for b in low]
    assert auc(np.array(high), np.array(low)) == pytest.approx(sum(pairs) / len(pairs))


@pytest.mark.parametrize("name", zoo.RECIPES)
def test_shipped_models_were_trained_by_the_recipe_on_the_data_that_ship(name):
    card, recipe = zoo.read_card(name), zoo.recipe(name)
    known = data.files.card(recipe.dataset)["files"]
    assert card["data"]["sha256_unpacked"] == {file: entry["sha256"] for file, entry in known.items()}
    assert card["command"] == f"python -m tinytorch.zoo train {name}"
    assert card["recipe"] == {
        "optimizer": "AdamW",
        "steps": recipe.steps,
        "warmup_steps": recipe.warmup_steps,
        "lr": recipe.lr,
        "betas": list(recipe.betas),
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
    }
    assert card["parameters"] == zoo.load(name).num_parameters()
