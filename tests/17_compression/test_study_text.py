"""The GPTs that ship with zeros: what their cards say of them is found again."""

import json

import numpy as np
import pytest

from tinytorch import data, nn, zoo
from tinytorch.benchmarks.tinymlperf.execution import SPARSE_FROM
from tinytorch.compression import __main__ as command
from tinytorch.compression import measure_sparsity, sparse_linears
from tinytorch.compression.study import TEXT_LEVELS, load_text, read_text_card, text
from tinytorch.zoo.evaluation import nats_per_token
from tinytorch.zoo.training import Interrupted

LOST = {70: 0.03, 90: 0.31}  # nats a letter at most


@pytest.mark.parametrize("level", TEXT_LEVELS)
def test_a_shipped_gpt_reaches_what_its_card_says_also_without_its_zeros(level):
    model, card = load_text(level), read_text_card(level)
    loss = card["rows"]["loss"]["value"]
    assert not model.training
    assert nats_per_token(sparse_linears(model, SPARSE_FROM), data.shakespeare("held-out")) == pytest.approx(
        loss, abs=1e-3
    )
    assert loss <= zoo.read_card("char_gpt")["rows"]["loss"]["value"] + LOST[level]
    assert card["sparsity"] == pytest.approx(measure_sparsity(model).sparsity, abs=1e-6)
    assert card["sparsity"] == pytest.approx(level / 100, abs=1e-3)
    assert card["parameters"] == model.num_parameters()
    assert card["command"] == f"python -m tinytorch.compression text --levels {level}"
    assert card["recipe"] == text.RECIPE


def test_a_level_that_does_not_ship_is_refused_with_those_that_do():
    with pytest.raises(KeyError, match="no GPT with 60 % of zeros; there are: 70, 90"):
        load_text(60)


@pytest.fixture
def tiny(monkeypatch):
    """A recipe of six steps, for a GPT that is trained in a moment."""

    def gpt(rng=None):
        return nn.GPT(68, 8, 1, 2, 256, rng=rng or np.random.default_rng(0))

    monkeypatch.setattr(text, "RECIPE", text.RECIPE | {"steps": 6, "zeros_grow_until": 3})
    monkeypatch.setattr(text.zoo, "load", lambda name: gpt())
    monkeypatch.setattr(text.zoo, "char_gpt", gpt)
    monkeypatch.setattr(text, "nats_per_token", lambda model, text: 4.0)


def test_training_keeps_zeros_and_card_and_gives_the_same_again(tiny, tmp_path, monkeypatch):
    first, second = (text.train_text(70, tmp_path / name) for name in ("a", "b"))
    assert first["sparsity"] == pytest.approx(0.7, abs=0.01)
    assert first["rows"]["loss"]["value"] == 4.0
    kept = [(tmp_path / name / "gpt_70.safetensors").read_bytes() for name in ("a", "b")]
    assert kept[0] == kept[1]
    assert first == second
    monkeypatch.setattr(text, "_FOLDER", tmp_path / "a")
    assert measure_sparsity(load_text(70)).sparsity == pytest.approx(first["sparsity"], abs=1e-6)
    assert json.loads((tmp_path / "a" / "gpt_70.json").read_text())["sparsity"] == first["sparsity"]


def test_ctrl_c_keeps_nothing_and_says_how_to_begin_anew(tiny, tmp_path, monkeypatch, capsys):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(text.optim, "clip_grad_norm_", stop)
    with pytest.raises(Interrupted, match=r"gpt_70 is not kept.*--levels 70"):
        text.train_text(70, tmp_path)
    assert not list(tmp_path.iterdir())
    assert command.main(["text", "--levels", "70"]) == 130
    assert "not kept" in capsys.readouterr().err
